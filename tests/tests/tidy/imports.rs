//! Rules for what the modules of a crate import from each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syn::{
    Attribute, Item, ItemFn, ItemImpl, ItemMod, ItemUse, Path, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::workspace::{File, assert_none, files};

/// The circles that are left, by how they begin.
const EXEMPT: [&str; 3] =
    ["evenkeel-core: crate: ", "evenkeel-discovery: ", "evenkeel-http: crate: "];

/// A path of names from the root of a crate.
type Names = Vec<String>;

/// One module, also one inside a file.
#[derive(Default)]
struct Module {
    file: String,
    /// The modules that it declares. Their paths may begin without `self`.
    children: BTreeSet<String>,
    /// What it names, and the line.
    named: Vec<(Names, usize)>,
    /// The names that it takes from elsewhere. `None` is another crate.
    imported: BTreeMap<String, Option<Names>>,
}

impl Module {
    fn new(file: &str, items: &[Item]) -> Self {
        let child = |item: &Item| match item {
            Item::Mod(child) => Some(child.ident.to_string()),
            _ => None,
        };
        let children = items.iter().filter_map(child).collect();
        Self { file: file.into(), children, ..Self::default() }
    }
}

/// The modules of one crate, without those that exist only for tests.
#[derive(Default)]
struct Crate(BTreeMap<Names, Module>);

/// For each folder its modules, what each of them imports, and where it does.
type Folders = BTreeMap<Names, BTreeMap<String, BTreeMap<String, String>>>;

impl Crate {
    fn read(&mut self, file: &File) {
        let path = module_path(&file.path);
        let parsed = syn::parse_file(&file.text).expect("parsed by the compiler");
        self.0.insert(path.clone(), Module::new(&file.path, &parsed.items));
        Reader { known: self, file: &file.path, path }.visit_file(&parsed);
    }

    /// The module that defines what `path` leads to. `None` if that is another crate.
    fn resolve(&self, mut path: Names) -> Option<Names> {
        // A name may be passed on a few times. Without a bound, two that pass on each other would
        // not end.
        for _ in 0..8 {
            let depth = (1..=path.len()).take_while(|end| self.0.contains_key(&path[..*end]));
            let depth = depth.last().unwrap_or(0);
            let Some(name) = path.get(depth) else { return Some(path) };
            match self.0.get(&path[..depth])?.imported.get(name) {
                Some(Some(target)) => path = [&target[..], &path[depth + 1..]].concat(),
                Some(None) => return None,
                None => return Some(path[..depth].to_vec()),
            }
        }
        None
    }

    /// What the modules of each folder import from each other.
    fn folders(&self) -> Folders {
        let mut folders = Folders::new();
        for (path, module) in &self.0 {
            for (named, line) in &module.named {
                let Some(target) = self.resolve(named.clone()) else { continue };
                let shared = path.iter().zip(&target).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (path.get(shared), target.get(shared)) {
                    let folder = folders.entry(path[..shared].to_vec()).or_default();
                    let imports = folder.entry(from.clone()).or_default();
                    let place = format!("{}:{line}", module.file);
                    imports.entry(to.clone()).or_insert(place);
                }
            }
        }
        folders
    }

    /// A shortest circle of each group of modules that import each other.
    fn circles(&self) -> Vec<String> {
        let mut circles = Vec::new();
        for (folder, imports) in self.folders() {
            let mut found: Vec<_> =
                imports.keys().filter_map(|module| circle(module, &imports)).collect();
            found.sort_by_key(Vec::len);
            let mut seen = BTreeSet::new();
            for circle in found {
                if circle.iter().any(|module| seen.contains(module)) {
                    continue;
                }
                let places: Vec<_> =
                    circle.windows(2).map(|pair| &*imports[&pair[0]][&pair[1]]).collect();
                let folder = [&["crate".into()], &folder[..]].concat().join("::");
                circles.push(format!("{folder}: {} ({})", circle.join(" → "), places.join(", ")));
                seen.extend(circle);
            }
        }
        circles
    }
}

/// The shortest way from `module` back to itself.
fn circle(
    module: &str,
    imports: &BTreeMap<String, BTreeMap<String, String>>,
) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![module.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in imports.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let way = [&way[..], std::slice::from_ref(next)].concat();
            if next == module {
                return Some(way);
            }
            if seen.insert(next) {
                ways.push_back(way);
            }
        }
    }
    None
}

/// The names that lead to the module of a file.
fn module_path(file: &str) -> Names {
    let (_, below) = file.split_once("/src/").expect("a source of a crate");
    let names = below.trim_end_matches(".rs").split('/').map(String::from);
    let mut names: Names = names.collect();
    names.pop_if(|last| ["lib", "main", "mod"].contains(&&**last));
    names
}

/// Reads the modules of one file.
struct Reader<'a> {
    known: &'a mut Crate,
    file: &'a str,
    /// The module that is read.
    path: Names,
}

impl Reader<'_> {
    fn module(&mut self) -> &mut Module {
        self.known.0.get_mut(&self.path).expect("added before it is read")
    }

    /// The path from the root of the crate. `None` if it does not begin inside the crate.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let (first, mut rest) = names.split_first()?;
        let mut base = self.path.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => _ = base.pop(),
            child if self.known.0[&self.path].children.contains(child) => rest = names,
            _ => return None,
        }
        while rest.first().is_some_and(|name| name == "super") {
            base.pop();
            rest = &rest[1..];
        }
        Some([&base[..], rest].concat())
    }

    fn read_use(&mut self, tree: &UseTree, before: &[String], line: usize) {
        let extended = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => {
                return self.read_use(&path.tree, &extended(&path.ident), line);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.read_use(tree, before, line));
            }
            UseTree::Glob(_) => (before.to_vec(), None),
            UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned())
            }
            UseTree::Name(name) => (extended(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (extended(&rename.ident), Some(rename.rename.to_string())),
        };
        let target = self.absolute(&path);
        let module = self.module();
        if let Some(name) = name {
            module.imported.insert(name, target.clone());
        }
        module.named.extend(target.map(|target| (target, line)));
    }
}

/// Whether this is left out of what ships: it is for tests, or for links in the documentation.
fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let cfg = attribute.path().is_ident("cfg").then(|| attribute.parse_args::<Path>());
        matches!(cfg, Some(Ok(cfg)) if cfg.is_ident("test") || cfg.is_ident("doc"))
    })
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let Some((_, items)) = &item.content else { return };
        if is_left_out(&item.attrs) {
            return;
        }
        self.path.push(item.ident.to_string());
        self.known.0.insert(self.path.clone(), Module::new(self.file, items));
        visit::visit_item_mod(self, item);
        self.path.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_left_out(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_left_out(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_left_out(&item.attrs) {
            self.read_use(&item.tree, &[], item.span().start().line);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if 1 < names.len()
            && let Some(target) = self.absolute(&names)
        {
            let line = path.span().start().line;
            self.module().named.push((target, line));
        }
        visit::visit_path(self, path);
    }
}

#[test]
fn modules_of_one_folder_do_not_import_each_other_in_a_circle() {
    let mut crates = BTreeMap::<String, Crate>::new();
    for file in files("rs").iter().filter(|file| !file.is_test()) {
        if let Some(name) = file.crate_name() {
            crates.entry(name.into()).or_default().read(file);
        }
    }
    let mut circles: Vec<_> = crates
        .iter()
        .flat_map(|(name, known)| {
            known.circles().into_iter().map(move |it| format!("{name}: {it}"))
        })
        .collect();
    circles.retain(|circle| !EXEMPT.iter().any(|begins| circle.starts_with(begins)));
    assert_none("a module imports only modules below it", &circles);
}

#[test]
fn a_circle_is_found_also_through_what_a_parent_passes_on() {
    let mut known = Crate::default();
    for (path, text) in [
        ("crates/x/src/lib.rs", "pub mod a; mod free; pub use free::Free;"),
        ("crates/x/src/free.rs", "#[cfg(test)] mod tests { use crate::a::Layer; }"),
        (
            "crates/x/src/a/mod.rs",
            "mod layer; mod service; pub use self::layer::Layer; pub use service::Service;",
        ),
        ("crates/x/src/a/layer.rs", "use super::Service; use crate::Free;"),
        ("crates/x/src/a/service.rs", "use std::fmt; fn f() { super::layer::Layer::new() }"),
    ] {
        known.read(&File { path: path.into(), text: text.into() });
    }

    let expected = "crate::a: layer → service → layer (crates/x/src/a/layer.rs:1, crates/x/src/a/service.rs:1)";
    assert_eq!(known.circles(), [expected]);
}
