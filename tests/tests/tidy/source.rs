//! Rules for the source.

use std::{collections::BTreeSet, sync::LazyLock};

use proc_macro2::{LineColumn, Span};
use syn::{
    Attribute, Block, ExprMethodCall, ExprUnsafe, Item, ItemFn, ItemImpl, ItemMod, ItemTrait, Path,
    Signature, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::workspace::{File, assert_none, file, files};

/// The limit of lines of a file without its tests.
const MAX_FILE_LINES: usize = 400;

/// The limit of lines of a function, from `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;

/// The only file that turns readings of the clock into points in time, for all crates.
const CLOCK: &str = "crates/evenkeel-clock/src/lib.rs";

/// The files that may read the clock. Benches and the demo measure.
const CLOCKS: [&str; 3] =
    [CLOCK, "crates/evenkeel-discovery/src/clock.rs", "crates/evenkeel-sim/src/time.rs"];

/// The findings in one file.
#[derive(Default)]
struct Found {
    functions: Vec<(String, usize, usize)>,
    clock_reads: Vec<usize>,
    /// Where a number becomes a point in time.
    timestamps: Vec<usize>,
    unsafe_code: Vec<usize>,
    unwraps: Vec<usize>,
    ignored: Vec<usize>,
    /// Lines of modules and items that exist only for tests.
    test_lines: usize,
    in_tests: usize,
}

impl Found {
    fn of(file: &File) -> Self {
        let parsed = syn::parse_file(&file.text).unwrap_or_else(|error| {
            let LineColumn { line, .. } = error.span().start();
            panic!("{}:{line}: {error}", file.path)
        });
        let mut found = Self::default();
        found.visit_file(&parsed);
        found
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let (start, end) =
            (line(signature.fn_token.span), block.brace_token.span.close().end().line);
        self.functions.push((signature.ident.to_string(), start, end + 1 - start));
        if signature.unsafety.is_some() {
            self.unsafe_code.push(start);
        }
    }

    /// Visits an item that is only for tests, if `attributes` say so.
    fn enter(&mut self, attributes: &[Attribute], span: Span, visit: impl FnOnce(&mut Self)) {
        if attributes.iter().any(|attribute| attribute.path().is_ident("ignore")) {
            self.ignored.push(line(span));
        }
        let is_test = attributes.iter().any(is_test);
        if is_test && self.in_tests == 0 {
            let first = attributes.iter().map(|attribute| line(attribute.span())).min();
            self.test_lines += span.end().line + 1 - first.unwrap_or(line(span));
        }
        self.in_tests += usize::from(is_test);
        visit(self);
        self.in_tests -= usize::from(is_test);
    }
}

/// Whether this is `#[cfg(test)]`, `#[test]`, `#[tokio::test]` or similar.
fn is_test(attribute: &Attribute) -> bool {
    let path = attribute.path();
    if path.is_ident("cfg") {
        return attribute.parse_args::<Path>().is_ok_and(|cfg| cfg.is_ident("test"));
    }
    path.segments.last().is_some_and(|last| last.ident == "test")
}

fn line(span: Span) -> usize {
    span.start().line
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.enter(&item.attrs, item.span(), |found| visit::visit_item_mod(found, item));
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.enter(&item.attrs, item.span(), |found| {
            found.function(&item.sig, &item.block);
            visit::visit_item_fn(found, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if item.unsafety.is_some() {
            self.unsafe_code.push(line(item.span()));
        }
        self.enter(&item.attrs, item.span(), |found| visit::visit_item_impl(found, item));
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        if item.unsafety.is_some() {
            self.unsafe_code.push(line(item.span()));
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_expr_unsafe(&mut self, item: &'ast ExprUnsafe) {
        self.unsafe_code.push(line(item.span()));
        visit::visit_expr_unsafe(self, item);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let is_unwrap = call.method == "unwrap" || call.method == "unwrap_err";
        if is_unwrap && self.in_tests == 0 {
            self.unwraps.push(line(call.method.span()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [.., class, "now"] = &*names.iter().map(String::as_str).collect::<Vec<_>>()
            && ["Instant", "SystemTime"].contains(class)
            && self.in_tests == 0
        {
            self.clock_reads.push(line(path.span()));
        }
        if names.ends_with(&["Timestamp".into(), "from_nanos".into()]) && self.in_tests == 0 {
            self.timestamps.push(line(path.span()));
        }
        visit::visit_path(self, path);
    }
}

/// All sources, with the findings in each. They are parsed once for all tests.
fn sources() -> &'static [(File, Found)] {
    static SOURCES: LazyLock<Vec<(File, Found)>> = LazyLock::new(|| {
        let parsed = files("rs").into_iter().map(|file| {
            let found = Found::of(&file);
            (file, found)
        });
        parsed.collect()
    });
    &SOURCES
}

/// Those of the crates, without tests.
fn shipped() -> impl Iterator<Item = &'static (File, Found)> {
    sources().iter().filter(|(file, _)| file.crate_name().is_some() && !file.is_test())
}

fn at<'a>(file: &'a File, lines: &'a [usize]) -> impl Iterator<Item = String> + 'a {
    lines.iter().map(|line| format!("{}:{line}", file.path))
}

#[test]
fn a_file_is_read_in_one_sitting() {
    let broken: Vec<_> = shipped()
        .map(|(file, found)| (file.text.lines().count() - found.test_lines, &file.path))
        .filter(|(lines, _)| MAX_FILE_LINES < *lines)
        .map(|(lines, path)| format!("{path} has {lines} lines without its tests"))
        .collect();
    assert_none(&format!("{MAX_FILE_LINES} lines at most"), &broken);
}

#[test]
fn a_function_fits_a_screen() {
    let mut broken = Vec::new();
    for (file, found) in sources() {
        for (name, line, lines) in &found.functions {
            if MAX_FUNCTION_LINES < *lines {
                broken.push(format!("{}:{line}: {name} has {lines} lines", file.path));
            }
        }
    }
    assert_none(&format!("{MAX_FUNCTION_LINES} lines at most"), &broken);
}

#[test]
fn the_clock_is_read_in_one_file_of_a_crate() {
    let broken: Vec<_> = shipped()
        .filter(|(file, _)| !CLOCKS.contains(&&*file.path))
        .flat_map(|(file, found)| at(file, &found.clock_reads))
        .collect();
    assert_none("the clock is an argument", &broken);
}

#[test]
fn architecture_names_what_reads_the_clock_and_which_policies_lock() {
    let architecture = file("ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let is_named = |path: &&str| architecture.contains(&format!("`{path}`")) || **path == *CLOCK;
    let broken: Vec<_> =
        CLOCKS.iter().filter(|path| !is_named(path)).map(ToString::to_string).collect();
    assert_none("ARCHITECTURE.md names the files that read the clock", &broken);

    const FOLDER: &str = "crates/evenkeel-core/src/policy/";
    let locking: BTreeSet<_> = shipped()
        .filter(|(file, _)| file.text.contains("Mutex"))
        .filter_map(|(file, _)| {
            let path = file.path.strip_prefix(FOLDER)?;
            Some(path.split(['/', '.']).next().unwrap_or(path).to_owned())
        })
        .collect();
    // A census locks where a gate changes, and the laws are for tests.
    let expected = ["census", "laws", "prequal"].map(str::to_owned);
    assert_eq!(locking, expected.into(), "ARCHITECTURE.md names the policies that lock");
}

#[test]
fn points_in_time_count_from_one_origin() {
    let made: Vec<_> = shipped()
        .filter(|(file, _)| {
            !["evenkeel-core", "evenkeel-sim"].map(Some).contains(&file.crate_name())
        })
        // Other files keep such a number, and never see the clock's reading itself.
        .filter(|(_, found)| !found.timestamps.is_empty() && !found.clock_reads.is_empty())
        .map(|(file, _)| &file.path)
        .collect();
    assert_eq!(made, [CLOCK], "timestamps of all crates have one origin");
}

#[test]
fn core_reads_no_clock_at_all_and_never_blocks() {
    let mut broken = Vec::new();
    for (file, _) in shipped().filter(|(file, _)| file.crate_name() == Some("evenkeel-core")) {
        for word in [
            "std::time::Instant",
            "SystemTime",
            "std::net::Tcp",
            "std::fs",
            "std::thread",
            "println!",
        ] {
            if file.text.contains(word) {
                broken.push(format!("{}: {word}", file.path));
            }
        }
    }
    assert_none("core has no clock, no I/O and no threads", &broken);
}

#[test]
fn there_is_no_unsafe_code() {
    let mut broken = Vec::new();
    for (file, found) in sources() {
        broken.extend(at(file, &found.unsafe_code));
    }
    assert_none("unsafe_code is forbidden", &broken);
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    let broken: Vec<_> = shipped().flat_map(|(file, found)| at(file, &found.unwraps)).collect();
    assert_none("expect(\"why it holds\") or an error", &broken);
}

#[test]
fn no_test_is_ignored() {
    let mut broken = Vec::new();
    for (file, found) in sources() {
        broken.extend(at(file, &found.ignored));
    }
    assert_none("no test is ignored", &broken);
}

#[test]
fn no_comment_defers_work() {
    // Assembled here, so that this file does not contain them.
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["to", "do!("]].map(|parts| parts.concat());
    let mut broken = Vec::new();
    for file in files("rs").into_iter().chain(files("toml")) {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    assert_none("no comment defers work", &broken);
}

#[test]
fn the_facade_has_names_and_no_code() {
    let mut broken = Vec::new();
    for file in files("rs").iter().filter(|file| file.path.starts_with("crates/evenkeel/src/")) {
        let parsed = syn::parse_file(&file.text).expect("parsed by the compiler");
        report_code(&file.path, &parsed.items, &mut broken);
    }
    assert_none("pub use, pub mod and documentation", &broken);
}

fn report_code(path: &str, items: &[Item], broken: &mut Vec<String>) {
    for item in items {
        match item {
            Item::Use(_) => {}
            Item::Mod(module) if matches!(module.vis, syn::Visibility::Public(_)) => {
                if let Some((_, items)) = &module.content {
                    report_code(path, items, broken);
                }
            }
            other => broken.push(format!("{path}:{}", line(other.span()))),
        }
    }
}

#[test]
fn a_public_module_of_a_crate_has_its_file() {
    let mut broken = Vec::new();
    let all = files("rs");
    for file in all.iter().filter(|file| file.path.ends_with("/src/lib.rs")) {
        let folder = file.path.trim_end_matches("lib.rs");
        for item in syn::parse_file(&file.text).expect("parsed by the compiler").items {
            let Item::Mod(ItemMod { ident, content: None, .. }) = item else { continue };
            let named = [format!("{folder}{ident}.rs"), format!("{folder}{ident}/mod.rs")];
            if !all.iter().any(|file| named.contains(&file.path)) {
                broken.push(format!("{}: {ident}", file.path));
            }
        }
    }
    assert_none("pub mod NAME is NAME.rs or NAME/mod.rs", &broken);
}

#[test]
fn there_are_no_glob_imports() {
    let mut broken = Vec::new();
    for (file, _) in shipped() {
        for item in syn::parse_file(&file.text).expect("parsed by the compiler").items {
            if let Item::Use(item) = item
                && matches!(item.vis, syn::Visibility::Inherited)
                && has_glob(&item.tree)
            {
                broken.push(format!("{}:{}", file.path, line(item.span())));
            }
        }
    }
    assert_none("use NAME, not *", &broken);
}

fn has_glob(tree: &UseTree) -> bool {
    match tree {
        UseTree::Glob(_) => true,
        UseTree::Path(path) => has_glob(&path.tree),
        UseTree::Group(group) => group.items.iter().any(has_glob),
        UseTree::Name(_) | UseTree::Rename(_) => false,
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let broken: Vec<_> = shipped()
        .filter(|(file, _)| !file.text.trim().is_empty() && !file.text.starts_with("//!"))
        .map(|(file, _)| file.path.clone())
        .collect();
    assert_none("a file begins with //!", &broken);
}

#[test]
fn a_broken_rule_is_found() {
    let text = r#"
        fn long() { let _ = 1.max(2); Some(1).unwrap(); std::time::Instant::now(); }
        fn origin() -> Timestamp { time::Timestamp::from_nanos(7) }
        unsafe fn wild() { unsafe {} }
        #[cfg(test)]
        mod tests {
            #[test]
            #[ignore]
            fn skipped() { Some(1).unwrap(); }
        }
    "#;

    let found = Found::of(&File { path: "made up".into(), text: text.into() });

    assert_eq!((found.unwraps, found.clock_reads, found.ignored), (vec![2], vec![2], vec![7]));
    assert_eq!((found.timestamps, found.unsafe_code), (vec![3], vec![4, 4]));
    assert_eq!((found.test_lines, found.functions.len()), (6, 4));
}
