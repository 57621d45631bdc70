//! Tests with real daemons: the command in the environment variable `BACKSCROLL`, or `backscroll`
//! on the `PATH`.

#![allow(
    clippy::wildcard_imports,
    clippy::needless_pass_by_value,
    clippy::format_collect,
    reason = "plain code in tests"
)]

mod access;
mod client;
mod example;
mod feed;
mod hooks;
mod losses;
mod media;
mod open;
mod support;
mod zeromq;
