//! `FileToken`: files that are replaced, broken or missing, and paths that are not files.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, executor::block_on, future::BoxFuture};
use tempfile::TempDir;
use tower_bearer::{FileToken, Runtime, SourceError, SourceErrorKind, TokenSource, first_of};

use crate::{
    sources::refreshing::{MINUTE, SECOND},
    support::{in_prepared_child, poll, text, token, virtual_time::VirtualTime},
};

/// A token file. The runtime has no background tasks, so a caller waits for each read.
struct Fixture {
    directory: TempDir,
    time: VirtualTime,
}

impl Fixture {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let fixture = Self {
            directory: TempDir::new().unwrap(),
            time: VirtualTime::caller_driven(),
        };
        fs::write(fixture.path(), text).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    fn source(&self) -> FileToken {
        FileToken::builder(self.path())
            .runtime(self.time.clone())
            .build()
            .unwrap()
    }

    fn replace(&self, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    /// The error of a source that reads this file: its kind, and the texts of its whole chain.
    fn error(&self) -> (SourceErrorKind, String) {
        let error = FileToken::new(self.path()).unwrap_err();
        let mut chain = error.to_string();
        assert!(chain.contains(self.path().to_str().unwrap()), "{chain}");
        let mut next = error.source();
        while let Some(source) = next {
            chain = format!("{chain}: {source}");
            next = source.source();
        }
        (error.kind(), chain)
    }
}

fn header(source: &FileToken) -> String {
    let token = block_on(source.token()).unwrap();
    token.header_value().to_str().unwrap().to_owned()
}

#[test]
fn whitespace_around_the_token_is_dropped() {
    let file = Fixture::with("\n  first\r\n\n");
    assert_eq!(header(&file.source()), "Bearer first");
}

#[test]
fn a_renamed_file_is_read_after_a_minute() {
    let file = Fixture::with("first");
    let source = file.source();
    file.replace("second");
    file.time.advance(MINUTE - SECOND);
    assert_eq!(header(&source), "Bearer first");
    file.time.advance(SECOND);
    assert_eq!(header(&source), "Bearer second");
}

#[test]
fn a_rejected_token_has_the_file_read_at_once() {
    let file = Fixture::with("first");
    let source = file.source();
    file.replace("second");
    block_on(source.token()).unwrap().reject();
    assert_eq!(header(&source), "Bearer second");
}

#[test]
fn a_rejected_token_that_is_still_in_the_file_is_sent_again() {
    let file = Fixture::with("first");
    let source = file.source();
    block_on(source.token()).unwrap().reject();
    assert_eq!(header(&source), "Bearer first");
    file.replace("second");
    file.time.advance(MINUTE);
    assert_eq!(header(&source), "Bearer second");
}

/// Puts a new token in the file, rejects the token that the source has, and asks the source.
fn revoke(file: &Fixture, source: &FileToken, next: &str) -> String {
    let before = block_on(source.token()).unwrap();
    file.replace(next);
    before.reject();
    header(source)
}

#[test]
fn a_token_that_lasted_from_one_read_to_the_next_has_two_revocations_answered_at_once() {
    let file = Fixture::with("token-0");
    let source = FileToken::builder(file.path())
        .reread_every(5 * SECOND)
        .runtime(file.time.clone())
        .build()
        .unwrap();
    assert_eq!(revoke(&file, &source, "token-1"), "Bearer token-1");
    for _ in 0..12 {
        file.time.advance(5 * SECOND);
        assert_eq!(header(&source), "Bearer token-1");
    }
    for token in ["token-2", "token-3"] {
        file.time.advance(SECOND);
        assert_eq!(revoke(&file, &source, token), format!("Bearer {token}"));
    }
}

#[test]
fn a_server_that_rejected_everything_for_an_hour_leaves_no_long_interval_behind() {
    let file = Fixture::with("token-0");
    let source = file.source();
    for _ in 0..3_600 {
        block_on(source.token()).unwrap().reject();
        file.time.advance(SECOND);
    }
    for _ in 0..360 {
        file.time.advance(10 * SECOND);
        header(&source);
    }
    file.time.advance(SECOND);
    assert_eq!(revoke(&file, &source, "token-1"), "Bearer token-1");
}

#[test]
fn a_server_that_revokes_a_token_before_the_file_is_replaced_costs_a_second() {
    let file = Fixture::with("old");
    let source = file.source();
    // A request each 100 ms, of which the server rejects each with the old token.
    let mut rejected = 0;
    for tenth in 0..100 {
        if tenth == 5 {
            file.replace("new");
        }
        let token = block_on(source.token()).unwrap();
        if text(&token) == "Bearer old" {
            token.reject();
            rejected += 1;
        }
        file.time.advance(SECOND / 10);
    }
    assert!((5..=12).contains(&rejected), "{rejected}");
}

#[cfg(unix)]
#[test]
fn a_swap_of_symbolic_links_as_kubernetes_does_it_is_followed() {
    use std::os::unix::fs::symlink;

    let directory = TempDir::new().unwrap();
    let volume = directory.path();
    let publish = |version: &str| {
        fs::create_dir(volume.join(version)).unwrap();
        fs::write(volume.join(version).join("token"), version).unwrap();
        symlink(version, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    publish("first");
    symlink("..data/token", volume.join("token")).unwrap();
    let time = VirtualTime::caller_driven();
    let source = FileToken::builder(volume.join("token"))
        .runtime(time.clone())
        .build()
        .unwrap();
    publish("second");
    fs::remove_dir_all(volume.join("first")).unwrap();
    assert_eq!(header(&source), "Bearer first");
    time.advance(MINUTE);
    assert_eq!(header(&source), "Bearer second");
}

#[test]
fn a_broken_file_keeps_the_last_token_until_a_later_read_fixes_it() {
    type Break = fn(&Path);
    let breakages: [(&str, Break); 6] = [
        ("truncated", |path| fs::write(path, "").unwrap()),
        ("only whitespace", |path| fs::write(path, " \n").unwrap()),
        ("half-written", |path| fs::write(path, "seco\0").unwrap()),
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("over-long", |path| {
            fs::write(path, "x".repeat(65_537)).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (name, break_it) in breakages {
        let file = Fixture::with("first");
        let source = file.source();
        break_it(&file.path());
        for _ in 0..5 {
            file.time.advance(MINUTE);
            assert_eq!(header(&source), "Bearer first", "{name}");
        }
        if file.path().is_dir() {
            fs::remove_dir(file.path()).unwrap();
        }
        fs::write(file.path(), "second").unwrap();
        file.time.advance(MINUTE);
        assert_eq!(header(&source), "Bearer second", "{name}");
    }
}

#[test]
fn what_is_wrong_at_start_up_is_an_error_that_names_the_file() {
    let too_long = [b'x'].repeat(65_537);
    let quotes = "(quotes around the value): leave the quotes out";
    let cases: [(&[u8], &str); 10] = [
        (b"", "does not hold a bearer token: token is empty"),
        (b" \n\t", "does not hold a bearer token: token is empty"),
        (
            b"two words",
            "does not hold a bearer token: token has a forbidden byte at offset 3 (space)",
        ),
        (b"\"abc\"\n", quotes),
        (b"\xef\xbb\xbf'abc'", quotes),
        (b"\xe9", " is not UTF-8"),
        (b"a\xff\xfe", "token is not UTF-8"),
        (
            b"\xff\xfea\0",
            "the byte order mark of UTF-16 and is not UTF-8",
        ),
        (
            b"\xfe\xff\0a",
            "the byte order mark of UTF-16 and is not UTF-8",
        ),
        (&too_long, "is over 64 KiB long"),
    ];
    for (text, expected) in cases {
        let (kind, chain) = Fixture::with(text).error();
        assert_eq!(kind, SourceErrorKind::Invalid, "{chain}");
        assert!(chain.ends_with(expected), "{chain}");
    }
    let file = Fixture::with("first");
    fs::remove_file(file.path()).unwrap();
    let (kind, chain) = file.error();
    assert_eq!(kind, SourceErrorKind::Absent);
    assert!(chain.contains("does not exist"), "{chain}");
    fs::create_dir(file.path()).unwrap();
    let (kind, chain) = file.error();
    assert_eq!(kind, SourceErrorKind::Invalid);
    assert!(chain.ends_with("is not a regular file"), "{chain}");
}

#[test]
fn a_path_that_only_a_shell_would_expand_is_told() {
    for path in ["~", "~/no-such/token", "$NO_SUCH/token", "no-such/${NAME}"] {
        let error = FileToken::new(path).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Absent);
        let expected =
            format!("token file {path} does not exist: nothing expands `~` or variables in a path");
        assert_eq!(error.to_string(), expected);
        assert!(error.cause::<io::Error>().is_some());
    }
    let error = FileToken::new("no-such/~token").unwrap_err();
    assert_eq!(
        error.to_string(),
        "token file no-such/~token does not exist"
    );
}

/// An error with its causes, as `Display` and as `Debug` show them.
fn shown(error: &SourceError) -> String {
    let mut shown = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(cause) = next {
        shown = format!("{shown} {cause} {cause:?}");
        next = cause.source();
    }
    shown
}

#[test]
fn a_token_in_place_of_a_path_is_not_shown() {
    // No file can have so long a name, and the system then does not say that the file does not exist.
    let long = format!("eyJhbGciOiJIUzI1NiJ9.{}", "x".repeat(5_000));
    for token in [
        "7Fjfp0ZBr1KtDRbnfVdmIw",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "0f8fad5bd9cb469fa16570867728950e\n",
        "$7Fjfp0ZBr1KtDRbnfVdmIw",
        "abcdefghijklmno1",
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
        "eyJ/a+b==",
        "eyJhbG\0",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        &long,
    ] {
        let builder = FileToken::builder(token).lazy();
        let shown_builder = format!("{builder:?}");
        let lazy = builder.build().unwrap();
        for shown in [shown_builder, format!("{lazy:?}")] {
            assert!(!shown.contains(&token[..5]), "{shown}");
        }
        for error in [
            FileToken::new(token).unwrap_err(),
            block_on(lazy.token()).unwrap_err(),
            block_on(first_of(FileToken::new(token)).token()).unwrap_err(),
        ] {
            let shown = shown(&error);
            assert!(
                shown.contains("no such token file: pass the path of the file, not the token"),
                "{shown}"
            );
            assert!(!shown.contains(&token[..5]), "{shown}");
        }
    }
}

#[test]
fn a_path_that_is_not_like_a_token_is_shown() {
    for path in [
        "token",
        "no-such-file-of-a-long-name-1",
        "./7Fjfp0ZBr1KtDRbnfVdmIw",
        "0123456789012345",
        "abcdefghijklmnop",
        "abcdefghijklmn1",
    ] {
        let error = FileToken::new(path).unwrap_err();
        let expected = format!("token file {path} does not exist");
        assert_eq!(error.to_string(), expected);
    }
}

/// A path that exists is a path, whatever it looks like.
#[cfg(target_os = "linux")]
#[test]
fn a_file_with_a_name_like_a_token_is_shown() {
    const NAME: &str = "7Fjfp0ZBr1KtDRbnfVdmIw";
    let directory = TempDir::new().unwrap();
    // This file can be opened, but each read fails.
    std::os::unix::fs::symlink("/proc/self/mem", directory.path().join(NAME)).unwrap();
    let enter = |child: &mut std::process::Command| {
        child.current_dir(directory.path());
    };
    let test = "sources::file::a_file_with_a_name_like_a_token_is_shown";
    in_prepared_child(test, enter, || {
        let error = FileToken::new(NAME).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Failed);
        let expected = format!("token file {NAME} cannot be read");
        assert_eq!(error.to_string(), expected);
    });
}

#[test]
fn a_byte_order_mark_before_the_token_is_dropped() {
    for text in ["\u{feff}abc\n", "\n\u{feff} abc"] {
        assert_eq!(header(&Fixture::with(text).source()), "Bearer abc");
    }
}

#[test]
fn a_file_of_just_64_kib_is_read() {
    let file = Fixture::with("x".repeat(65_536));
    assert_eq!(header(&file.source()).len(), "Bearer ".len() + 65_536);
}

/// This file exists and can be opened, but each read fails.
#[cfg(target_os = "linux")]
#[test]
fn a_file_whose_every_read_fails_is_an_error_and_does_not_hang() {
    let error = FileToken::new("/proc/self/mem").unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Failed);
    assert!(error.to_string().ends_with("cannot be read"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_pipe_in_its_place_is_an_error_and_does_not_hang() {
    let file = Fixture::with("first");
    let source = file.source();
    fs::remove_file(file.path()).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(file.path())
        .status();
    assert!(made.unwrap().success());
    let (kind, chain) = file.error();
    assert_eq!(kind, SourceErrorKind::Invalid);
    assert!(chain.ends_with("is not a regular file"), "{chain}");
    file.time.advance(MINUTE);
    assert_eq!(header(&source), "Bearer first");
}

/// Root may read every file, so a permission does not help here. Not even root can read a path through a
/// file.
#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_any_more_keeps_the_last_token() {
    let directory = TempDir::new().unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("token"), "first").unwrap();
    let time = VirtualTime::caller_driven();
    let path = folder.join("token");
    let source = FileToken::builder(&path)
        .runtime(time.clone())
        .build()
        .unwrap();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "a file where the folder was").unwrap();
    assert_eq!(
        FileToken::new(&path).unwrap_err().kind(),
        SourceErrorKind::Failed
    );
    time.advance(MINUTE);
    assert_eq!(header(&source), "Bearer first");
}

#[test]
fn a_nonstandard_token_and_another_interval_are_settings() {
    let file = Fixture::with("id:1");
    assert!(FileToken::new(file.path()).is_err());
    let source = FileToken::builder(file.path())
        .nonstandard()
        .reread_every(SECOND)
        .runtime(file.time.clone())
        .build()
        .unwrap();
    assert_eq!(header(&source), "Bearer id:1");
    file.replace("id:2");
    file.time.advance(SECOND);
    assert_eq!(header(&source), "Bearer id:2");
}

/// Does blocking work at once, or keeps the work, as a thread that hangs does.
#[derive(Clone, Debug)]
struct Threads {
    time: VirtualTime,
    hang: bool,
    works: Arc<Mutex<Vec<Work>>>,
    count: Arc<AtomicUsize>,
}

struct Work(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl Threads {
    fn new(hang: bool) -> Self {
        Self {
            time: VirtualTime::new(),
            hang,
            works: Arc::default(),
            count: Arc::default(),
        }
    }
}

impl Runtime for Threads {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.time.spawn(task)
    }

    fn spawn_blocking(
        &self,
        work: Box<dyn FnOnce() + Send>,
    ) -> Result<(), Box<dyn FnOnce() + Send>> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.hang {
            self.works.lock().unwrap().push(Work(work));
        } else {
            work();
        }
        Ok(())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.time.sleep(duration)
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    fn system_now(&self) -> SystemTime {
        self.time.system_now()
    }
}

#[test]
fn after_a_night_the_first_request_waits_for_the_file_of_the_morning() {
    let fixture = Fixture::with("evening");
    let threads = Threads::new(false);
    let builder = FileToken::builder(fixture.path()).runtime(threads.clone());
    let source = builder.build().unwrap();
    fixture.replace("morning");
    threads.time.advance(2 * MINUTE - SECOND);
    let token = source.token().now_or_never().expect("a request waits");
    assert_eq!(text(&token.unwrap()), "Bearer evening");
    threads.time.run();
    threads.time.advance(8 * 60 * MINUTE);
    fixture.replace("noon");
    let token = threads.time.block_on(source.token());
    assert_eq!(text(&token.unwrap()), "Bearer noon");
    assert_eq!(
        threads.count.load(Ordering::SeqCst),
        2,
        "a thread of the runtime reads"
    );
}

#[test]
fn a_file_system_that_hangs_holds_up_no_request_for_long_and_takes_one_thread() {
    let fixture = Fixture::with("good");
    let threads = Threads::new(true);
    let builder = FileToken::builder(fixture.path()).runtime(threads.clone());
    let source = builder.build().unwrap();
    threads.time.advance(8 * 60 * MINUTE);
    let mut waiting = source.token();
    assert!(poll(&mut waiting).is_pending());
    threads.time.advance(5 * SECOND);
    assert_eq!(
        text(&threads.time.block_on(waiting).unwrap()),
        "Bearer good"
    );
    for _ in 0..600 {
        threads.time.advance(SECOND);
        let token = source.token().now_or_never().expect("a request waits");
        assert_eq!(text(&token.unwrap()), "Bearer good");
    }
    assert_eq!(
        threads.count.load(Ordering::SeqCst),
        1,
        "each try takes a thread more"
    );
    // The last fetch ends with an error. Then the thread ends its read, so the next read may begin.
    threads.time.run();
    fixture.replace("new");
    for Work(work) in threads.works.lock().unwrap().drain(..) {
        work();
    }
    threads.time.advance(MINUTE);
    let waiting = source.token();
    threads.time.run();
    assert_eq!(threads.count.load(Ordering::SeqCst), 2);
    for Work(work) in threads.works.lock().unwrap().drain(..) {
        work();
    }
    assert_eq!(
        text(&threads.time.block_on(waiting).unwrap()),
        "Bearer good"
    );
    assert_eq!(
        text(&threads.time.block_on(source.token()).unwrap()),
        "Bearer new"
    );
}

/// A runtime may shut down before a thread takes the work.
#[test]
fn a_read_that_is_dropped_undone_does_not_count_as_one_that_hangs() {
    let fixture = Fixture::with("good");
    let threads = Threads::new(true);
    let builder = FileToken::builder(fixture.path()).runtime(threads.clone());
    let source = builder.build().unwrap();
    for reads in 1..4 {
        threads.time.advance(2 * MINUTE);
        let waiting = source.token();
        threads.time.run();
        assert_eq!(threads.count.load(Ordering::SeqCst), reads);
        threads.works.lock().unwrap().clear();
        let token = threads.time.block_on(waiting).unwrap();
        assert_eq!(text(&token), "Bearer good");
    }
}

/// This runtime has no threads for blocking work, so each read has a thread of its own.
#[test]
fn a_thread_that_has_read_makes_way_for_the_next() {
    let fixture = Fixture::with("token-0");
    let source = fixture.source();
    for number in 1..20 {
        fixture.replace(&format!("token-{number}"));
        fixture.time.advance(MINUTE);
        assert_eq!(header(&source), format!("Bearer token-{number}"));
    }
}

#[test]
fn a_lazy_file_may_come_later_and_a_chain_goes_on_meanwhile() {
    let fixture = Fixture::with("later");
    fs::remove_file(fixture.path()).unwrap();
    let threads = Threads::new(false);
    let builder = FileToken::builder(fixture.path()).lazy();
    let source = builder.runtime(threads.clone()).build().unwrap();
    assert_eq!(
        threads.count.load(Ordering::SeqCst),
        0,
        "it is read at the first request"
    );
    let error = threads.time.block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Absent);
    // The error comes at once, also in the back-off.
    let error = source
        .token()
        .now_or_never()
        .expect("a request waits")
        .unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Absent);
    let chain = first_of(source.clone()).or(token("other"));
    let other = threads.time.block_on(chain.token()).unwrap();
    assert_eq!(text(&other), "Bearer other");

    fixture.replace("later");
    threads.time.advance(5 * SECOND);
    assert_eq!(
        text(&threads.time.block_on(source.token()).unwrap()),
        "Bearer later"
    );
}

#[cfg(feature = "tokio")]
#[test]
fn without_a_timer_the_file_is_read_again_all_the_same() {
    let fixture = Fixture::with("old");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let builder = FileToken::builder(fixture.path());
        let source = builder
            .reread_every(Duration::from_millis(1))
            .build()
            .unwrap();
        fixture.replace("new");
        let start = Instant::now();
        while text(&source.token().await.unwrap()) == "Bearer old" {
            assert!(start.elapsed() < MINUTE, "the old token is sent for ever");
            tokio::task::yield_now().await;
        }
    });
}
