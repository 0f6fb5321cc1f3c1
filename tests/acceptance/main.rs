//! What the cluster promises, held against real node processes: phones and judges that share no code with the nodes.
//!
//! Each test runs its own nodes on loopback. The figures are scaled so that all of it takes about two minutes;
//! `AORTA_ACCEPTANCE=full` takes those of the issue (100 000 phones, 30 s down, 20 s asleep). Nothing else may run
//! beside these tests (`.config/nextest.toml` sees to it): they measure time.

mod answers;
mod cluster;
mod drain;
mod elsewhere;
mod join;
mod power;
mod power_phones;
mod refusals;
mod restart;
mod sleeper;
