//! How many freed blocks of memory still hold the client secret or the access token, after a flow with
//! client credentials (RFC 6749 §4.4):
//! `cargo run -p tower-bearer-token-servers --bin freed_memory`.
//!
//! Each flow builds the crate's client, fetches a token over a transport in memory, makes a `BearerToken` of
//! it, and drops everything. The transport wipes what it can reach: the bodies of requests, and the bodies of
//! responses where the crate takes shared bytes. So the count is of blocks that the crate itself leaves.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod allocator;
mod flows;

use allocator::{SECRET, SECRET_IN_BASE64, TOKEN, freed_in};
use base64::prelude::{BASE64_STANDARD, Engine};
use flows::Method::{Basic, Post};

fn main() {
    let credentials = BASE64_STANDARD.encode(format!("example:{SECRET}"));
    assert!(credentials.starts_with(SECRET_IN_BASE64));
    let control = freed_in(|| drop((credentials, SECRET.to_owned(), TOKEN.to_owned())));
    assert_eq!(control, [2, 1], "the scan works");

    println!("freed blocks that still hold      the client secret   the access token");
    let mut ours = [0; 2];
    for (name, flow) in [
        ("oauth2", flows::oauth2 as fn(_)),
        ("huskarl", flows::huskarl),
        ("tower-bearer", flows::tower_bearer),
    ] {
        for method in [Basic, Post] {
            // What a crate initialises once is not a part of the flow.
            flow(method);
            let [secret, token] = freed_in(|| flow(method));
            println!("{name:<14} {method:<20} {secret:>14} {token:>18}");
            if name == "tower-bearer" {
                ours = [ours[0] + secret, ours[1] + token];
            }
        }
    }
    assert_eq!(ours, [0, 0], "tower-bearer leaves nothing behind");
}
