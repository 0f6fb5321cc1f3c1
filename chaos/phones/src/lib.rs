//! SIP phones, a small SBC and load for tests and the demo.
