//! One file per subcommand.

pub mod topic;
