//! The agent: it runs beside a server for years, begins what is due, and tells how it went.
//!
//! ```text
//! settings file ─► config ─► schedule (what is due) ─► run: a child process of the own program for each job
//!                               │  ▲                     │ JSON lines
//!                    memory (a file)└──── how it ended ◄─┘ ─► service (pages), metrics
//! ```
//!
//! Runs are processes of their own, so that one that dies, leaks or hangs takes nothing along, and so that what runs by schedule is just what
//! a person can type. The agent itself never touches the repository or the server; the page reads the repository.
#![doc = include_str!("WEBHOOKS.md")]

mod archiver;
mod child;
mod config;
mod courier;
mod cron;
mod error;
mod hooks;
mod lock;
mod mail;
mod memory;
mod metrics;
mod orders;
mod progress;
mod reload;
mod run;
mod schedule;
mod service;
mod story;
mod tally;

pub use child::Launcher;
pub use config::{AgentConfig, IoClass, Planned, Task};
pub use cron::{Cron, zone_named};
pub use error::AgentError;
pub use hooks::Hooks;
pub use reload::{Loaded, Source};
pub use run::{Context, Page, Supervisor, run};
pub use schedule::preview;
