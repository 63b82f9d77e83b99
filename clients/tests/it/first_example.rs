//! The README and the front page of the documentation begin with the same program. A documentation test of
//! this package compiles the README.

/// The first block of Rust code in a text.
fn first_block(text: &str) -> Vec<&str> {
    let is_fence = |line: &&str| line.starts_with("```rust") || *line == "```no_run";
    let lines = text.lines().skip_while(|line| !is_fence(line)).skip(1);
    lines.take_while(|line| *line != "```").collect()
}

#[test]
fn the_front_page_of_the_documentation_begins_with_the_readmes_program() {
    let readme = include_str!("../../../README.md");
    let front_page = include_str!("../../../src/first_program.md");
    assert!(first_block(readme).len() > 20);
    assert_eq!(first_block(front_page), first_block(readme));
}
