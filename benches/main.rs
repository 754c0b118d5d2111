//! `cargo bench` prints the whole table, `cargo bench -- picks wire` prints parts of it.

use evenkeel_benches::{PARTS, serve};

fn main() {
    // Cargo passes `--bench` only when it measures, not when it runs tests.
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let wanted: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    if wanted.iter().any(|word| *word == serve::ARGUMENT) {
        return serve::run();
    }
    if wanted.is_empty() && !arguments.iter().any(|word| word == "--bench") {
        println!("nothing is measured: say `cargo bench`, or name the parts");
        return;
    }
    for (name, run) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|word| *word == name) {
            run();
        }
    }
}
