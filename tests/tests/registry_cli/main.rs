//! `larder pull`, `push`, `login`, `logout` and `apply`, as people run them, against real registries.

mod applies;
mod faults;
mod logins;
mod pulls;
mod pushes;
mod ranges;
mod support;
mod together;
