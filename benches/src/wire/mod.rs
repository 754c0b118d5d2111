pub mod serve {
    pub const ARGUMENT: &str = "serve";
    pub fn run() {}
}
pub(crate) fn run() {}
