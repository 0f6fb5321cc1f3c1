//! The simulator and the judges.
