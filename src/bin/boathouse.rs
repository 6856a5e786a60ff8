//! The `boathouse` program: the daemon and every command around it.

fn main() -> std::process::ExitCode {
    boathouse::cli::main()
}
