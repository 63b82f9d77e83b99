//! Counts the instructions, cache misses and heap allocations that each case adds to a request. The
//! counts repeat exactly, so this program also compares them with limits.
//!
//! `cargo bench -p tower-bearer-benches --bench instructions` needs valgrind. The program runs itself
//! under `callgrind` with few requests and with many, and takes the difference.
#![allow(unsafe_code, clippy::print_stdout, clippy::cast_precision_loss)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use http::{Request, Response};
use tower::Service;
use tower_bearer_benches::{
    BARE, BASELINE, Visitor, ensure_variable, request, send, target_directory, visit,
};

/// The instructions that a case may add to a request, as a multiple of what tower-http's static layer
/// adds. The limits are a little above the measured values, so that a regression shows.
const LIMITS: [(&str, f64); 6] = [
    ("static", 1.45),
    ("env", 1.45),
    ("dyn static", 1.55),
    ("rotating", 1.70),
    ("refreshing", 1.95),
    ("file", 1.95),
];

const FEW: u64 = 200;
const MANY: u64 = 1_200;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: each call is passed on to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Sends a number of requests through a case.
struct Run {
    requests: u64,
    /// The fewest allocations of a single request.
    allocations: Option<u64>,
}

impl Visitor for Run {
    fn visit<S>(&mut self, _: &str, mut service: S)
    where
        S: Service<Request<()>, Response = Response<()>> + Clone,
    {
        for _ in 0..self.requests {
            let request = request();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            send(&mut service, request);
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            self.allocations = Some(self.allocations.unwrap_or(u64::MAX).min(allocations));
        }
    }
}

/// Collects the names of the cases.
struct Names(Vec<String>);

impl Visitor for Names {
    fn visit<S>(&mut self, name: &str, _: S)
    where
        S: Service<Request<()>, Response = Response<()>> + Clone,
    {
        self.0.push(name.to_owned());
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    instructions: f64,
    /// Data reads and writes that missed the first-level cache.
    misses: f64,
    allocations: u64,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    ensure_variable()?;
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    if let (Some(case), Some(requests)) = (arguments.next(), arguments.next()) {
        let mut run = Run {
            requests: requests.parse()?,
            allocations: None,
        };
        visit(|name| name == case, &mut run)?;
        println!("{}", run.allocations.unwrap_or_default());
        return Ok(());
    }
    let mut names = Names(Vec::new());
    visit(|_| true, &mut names)?;
    let mut results = BTreeMap::new();
    for name in &names.0 {
        results.insert(name.as_str(), measure(name)?);
    }
    report(&names.0, &results)
}

fn measure(case: &str) -> Result<Counts, Box<dyn Error + Send + Sync>> {
    let (few, misses_few, _) = callgrind(case, FEW)?;
    let (many, misses_many, allocations) = callgrind(case, MANY)?;
    let per_request = |few: u64, many: u64| (many.saturating_sub(few)) as f64 / (MANY - FEW) as f64;
    Ok(Counts {
        instructions: per_request(few, many),
        misses: per_request(misses_few, misses_many),
        allocations,
    })
}

/// Gives the instructions and the cache misses of all requests, and the allocations of a single request.
fn callgrind(case: &str, requests: u64) -> Result<(u64, u64, u64), Box<dyn Error + Send + Sync>> {
    let file = tempfile::NamedTempFile::new()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--cache-sim=yes"])
        .arg(format!("--callgrind-out-file={}", file.path().display()))
        .arg(env::current_exe()?)
        .args([case, &requests.to_string()])
        // Otherwise glibc trims the heap at each request or at none, depending on where the heap ends.
        .env("MALLOC_TRIM_THRESHOLD_", "1000000000")
        .env("MALLOC_TOP_PAD_", "1000000")
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = fs::read_to_string(file.path())?;
    let line = |key| text.lines().find_map(|line| line.strip_prefix(key));
    let (events, summary) = (line("events:"), line("summary:"));
    let (events, summary) = events.zip(summary).ok_or("callgrind wrote no summary")?;
    let counts: BTreeMap<_, u64> = events
        .split_whitespace()
        .zip(
            summary
                .split_whitespace()
                .map(|count| count.parse().unwrap_or_default()),
        )
        .collect();
    let get = |event| counts.get(event).copied().unwrap_or_default();
    let allocations = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok((get("Ir"), get("D1mr") + get("D1mw"), allocations))
}

fn report(
    names: &[String],
    results: &BTreeMap<&str, Counts>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let of = |name: &str| results.get(name).copied().unwrap_or_default();
    let (bare, baseline) = (of(BARE), of(BASELINE));
    let baseline_added = baseline.instructions - bare.instructions;
    println!("Added to a request with eight headers:\n");
    println!("| case | instructions | ratio | D1 misses | allocations |");
    println!("|---|---:|---:|---:|---:|");
    let mut json = String::from("{\n");
    let mut slow = Vec::new();
    for name in names {
        let counts = of(name);
        let added = counts.instructions - bare.instructions;
        let ratio = added / baseline_added;
        println!(
            "| {name} | {added:.0} | {ratio:.2} | {:.1} | {} |",
            (counts.misses - bare.misses).max(0.0),
            counts.allocations
        );
        writeln!(
            json,
            "  {name:?}: {{\"instructions\": {added:.1}, \"allocations\": {}}},",
            counts.allocations
        )?;
        let plain = name.strip_suffix(", scoped").unwrap_or(name);
        let Some((_, limit)) = LIMITS.iter().find(|(limited, _)| *limited == plain) else {
            continue;
        };
        // A scoped case also compares the origin.
        let limit = if plain == name { *limit } else { limit + 0.15 };
        if ratio > limit {
            slow.push(format!(
                "{name}: {ratio:.2} times tower-http's, the limit is {limit:.2}"
            ));
        }
        if counts.allocations > 0 {
            slow.push(format!("{name}: {} allocations", counts.allocations));
        }
    }
    json.truncate(json.trim_end_matches(",\n").len());
    json.push_str("\n}\n");
    fs::write(target_directory()?.join("instructions.json"), json)?;
    if slow.is_empty() {
        return Ok(());
    }
    Err(slow.join("\n").into())
}
