//! Waiters of a `RotatingToken`.

use shuttle::{future::block_on, thread};
use tower_bearer::{BearerToken, RotatingToken, TokenSource};

use crate::support::{check, join, number, poll_once};

fn token(text: &str) -> BearerToken {
    BearerToken::new(text).unwrap()
}

fn go<T: Send + 'static>(
    source: &RotatingToken,
    work: impl FnOnce(&RotatingToken) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let source = source.clone();
    thread::spawn(move || work(&source))
}

fn ask(source: &RotatingToken) -> usize {
    number(&block_on(source.token()).unwrap())
}

#[test]
fn every_waiter_hears_of_a_rotation() {
    check(|| {
        let source = RotatingToken::empty();
        let waiters = [(); 2].map(|()| go(&source, ask));
        let leaves = go(&source, |source| drop(poll_once(&mut source.token())));
        source.rotate(token("1"));
        assert_eq!(join(waiters), [1, 1]);
        join([leaves]);
    });
}

#[test]
fn a_waiter_who_is_not_polled_holds_up_nobody() {
    check(|| {
        let source = RotatingToken::empty();
        let stays = go(&source, |source| {
            let mut token = source.token();
            let _ = poll_once(&mut token);
            token
        });
        let waiters = [(); 2].map(|()| go(&source, ask));
        source.rotate(token("1"));
        assert_eq!(join(waiters), [1, 1]);
        drop(join([stays]));
    });
}

#[test]
fn whoever_asks_after_a_rotation_gets_its_token() {
    check(|| {
        let source = RotatingToken::empty();
        let waiters = [(); 2].map(|()| go(&source, ask));
        let rotates = go(&source, |source| {
            source.rotate(token("1"));
            source.rotate(token("2"));
            assert_eq!(ask(source), 2);
        });
        for token in join(waiters) {
            assert!((1..=2).contains(&token));
        }
        join([rotates]);
    });
}

#[test]
fn a_rotation_reaches_whoever_asked_before_the_last_handle_went() {
    check(|| {
        let source = RotatingToken::empty();
        let waiters = [(); 2].map(|()| {
            let token = source.token();
            thread::spawn(move || block_on(token).map(|token| number(&token)))
        });
        source.rotate(token("1"));
        drop(source);
        for result in join(waiters) {
            assert_eq!(result.unwrap(), 1);
        }
    });
}

#[test]
fn every_waiter_is_told_when_the_last_handle_goes() {
    check(|| {
        let source = RotatingToken::empty();
        let waiters = [(); 2].map(|()| {
            let token = source.token();
            thread::spawn(move || block_on(token).is_err())
        });
        let handles = [(); 2].map(|()| go(&source, |_| ()));
        drop(source);
        assert_eq!(join(waiters), [true, true]);
        join(handles);
    });
}
