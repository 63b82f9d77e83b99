//! The README and the front page of the documentation begin with the same program. A documentation test of
//! this package compiles the README.

/// The first block of Rust code in a text.
fn first_block(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| !is_fence(line)).skip(1);
    lines.take_while(|line| *line != "```").collect()
}

fn is_fence(line: &str) -> bool {
    line.starts_with("```rust") || line == "```ignore"
}

#[test]
fn the_front_page_of_the_documentation_begins_with_the_readmes_program() {
    let readme = include_str!("../../../README.md");
    let source = include_str!("../../../src/lib.rs");
    let docs: Vec<_> = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let docs = docs.join("\n");
    assert!(first_block(readme).len() > 20);
    assert_eq!(first_block(&docs), first_block(readme));
}
