//! The shape of the source tree, held by a test: which folder may use which, where SQL may stand, how long a
//! file may be. Test code in `#[cfg(test)]` is free of all this.

use std::path::{Path, PathBuf};

/// Which parts of the crate each part may use. `ARCHITECTURE.md` shows the same as a picture.
/// Everything may use itself and `COMMON`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("db", &[]),
    ("catalog", &["db"]),
    ("hot", &["db"]),
    ("cold", &[]),
    // `db` for those who combine catalog and hot tier: the transaction that spans both, a row's home.
    ("ingest", &["hot", "catalog", "db"]),
    ("archive", &["hot", "cold", "catalog", "db"]),
    ("read", &["hot", "cold", "catalog", "db"]),
    ("audit", &["hot", "cold", "catalog", "db"]),
    // Its pure half uses nothing; its surfaces take in and show as `http` does, and keep what is no log in the store.
    ("protocol", &["ingest", "read", "cold", "config"]),
    // `archive` only to ask for a run now and to show reports: timer and request share one path.
    ("http", &["ingest", "read", "audit", "protocol", "archive"]),
];

/// What every part but these themselves may use; `telemetry` and `clock` may use `model` too.
const COMMON: &[&str] = &["model", "clock", "telemetry", "pause", "fuzzing"];

/// The parts that put the others together.
const TOP: &[&str] = &["app", "cli", "lib", "main", "supervisor", "pairing", "tiers"];

/// Lines before a file's tests. A longer one tells two stories.
const MAX_LINES: usize = 500;

#[test]
fn only_the_agreed_arrows() {
    complain(&sources(), |file| {
        let from = part_of(&file.path);
        let arrows = crate_uses(&file.code, depth_of(&file.path)).into_iter();
        arrows.filter(|(_, to)| !allowed(&from, to)).map(|(at, to)| (at, format!("{from} may not use {to}"))).collect()
    });
}

#[test]
fn sql_stands_in_sql_files_only() {
    complain(&sources(), |file| {
        if is_sql_file(&file.path) {
            return Vec::new();
        }
        let texts = file.strings.iter().filter(|(_, text)| looks_like_sql(text));
        texts.map(|(at, text)| (*at, format!("an SQL statement outside a sql.rs: {text:.40}"))).collect()
    });
}

#[test]
fn nothing_is_left_to_do() {
    complain(&sources(), |file| {
        let lines = file.code.lines().enumerate();
        let left = lines.filter(|(_, line)| line.contains("todo!(") || line.contains("unimplemented!("));
        left.map(|(at, _)| (at + 1, "unfinished code".to_owned())).collect()
    });
}

#[test]
fn no_file_is_too_long() {
    complain(&sources(), |file| {
        let length = file.code.lines().count();
        if length <= MAX_LINES {
            return Vec::new();
        }
        vec![(length, format!("{length} lines before its tests, more than {MAX_LINES}"))]
    });
}

/// A source file without its tests and comments.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// The code up to its tests: comments and the insides of literals are blank, line numbers as in the file.
    code: String,
    /// Line and text of each string literal.
    strings: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    assert!(sources.len() > 5, "no sources found in {}", root.display());
    sources
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("read a source folder") {
        let path = entry.expect("read a source folder").path();
        if path.is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // A file of tests only, `mod tests;` behind cfg(test) beside it.
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("read a source file");
            let path = path.strip_prefix(root).expect("found under the root").to_owned();
            sources.push(Source::new(path, &text));
        }
    }
}

/// Fails with every complaint at once, each as `file:line: what`.
fn complain(sources: &[Source], check: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut complaints = Vec::new();
    for source in sources {
        for (line, what) in check(source) {
            complaints.push(format!("src/{}:{line}: {what}", source.path.display()));
        }
    }
    complaints.sort();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

impl Source {
    fn new(path: PathBuf, text: &str) -> Source {
        let (masked, mut strings) = mask(text);
        let code = without_tests(&masked);
        // What `without_tests` blanked keeps its line breaks, so a string in a test stands on a blank line.
        let blank: Vec<bool> = code.lines().map(|line| line.trim().is_empty()).collect();
        strings.retain(|(line, _)| blank.get(line - 1).is_some_and(|blank| !blank));
        Source { path, code, strings }
    }
}

/// The first folder or the file's name: `hot/insert.rs` and `hot.rs` are `hot`.
fn part_of(path: &Path) -> String {
    let first = path.iter().next().and_then(|first| first.to_str()).unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

/// How many `super::` lead from the file to the crate's root.
fn depth_of(path: &Path) -> usize {
    let named = path.iter().count();
    let is_mod = path.file_stem().is_some_and(|stem| ["mod", "lib", "main"].iter().any(|name| stem == *name));
    if is_mod { named - 1 } else { named }
}

fn allowed(from: &str, to: &str) -> bool {
    if from == to || TOP.contains(&from) {
        return true;
    }
    if COMMON.contains(&to) && from != "model" {
        return true;
    }
    // A new folder has to be put into the table first.
    MAY_USE.iter().any(|(part, targets)| *part == from && targets.contains(&to))
}

fn is_sql_file(path: &Path) -> bool {
    let in_folder = path.iter().any(|name| name == "sql");
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    in_folder || name == "sql.rs" || name.starts_with("sql_")
}

fn looks_like_sql(text: &str) -> bool {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let starts =
        ["SELECT ", "DELETE FROM ", "REPLACE INTO ", "CREATE TABLE ", "ALTER TABLE ", "DROP TABLE ", "CREATE INDEX "];
    starts.iter().any(|start| text.contains(start))
        || (text.contains("INSERT ") && text.contains("INTO "))
        || (text.contains("UPDATE ") && text.contains(" SET "))
}

/// Every name that follows `crate::` (or as many `super::` as lead there), with its line.
fn crate_uses(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut roots = vec!["crate::".to_owned(), "logtier::".to_owned()];
    if depth > 0 {
        roots.push("super::".repeat(depth));
    }
    let mut uses = Vec::new();
    for root in &roots {
        for (at, _) in code.match_indices(root.as_str()) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            if rest.starts_with("super::") {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            uses.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    uses
}

/// `a::b` gives a; `{a::{b, c}, d}` gives a and d.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![identifier(rest)];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' if depth == 0 => {
                names.push(identifier(group[start..at].trim_start()));
                start = at + 1;
            }
            '}' if depth == 0 => {
                names.push(identifier(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// Blanks every item behind `#[cfg(test)]`, and cuts the file where the last of them ends it.
fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    while let Some(at) = code.find("#[cfg(test)]") {
        let rest = &code[at..];
        // The item ends with its first `;` or with the brace that closes its first one.
        let mut depth = 0;
        let mut end = rest.len();
        for (offset, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (character == ';' || character == '}') {
                end = offset + 1;
                break;
            }
        }
        let blank: String = rest[..end].chars().map(|character| if character == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(at..at + end, &blank);
    }
    code.truncate(code.trim_end().len());
    code
}

/// Blanks comments and the insides of literals; returns the string literals with their lines.
fn mask(text: &str) -> (String, Vec<(usize, String)>) {
    let mut masked = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = masked.chars().next_back();
        let (length, literal) = token(rest, before);
        let piece = &rest[..length];
        if let Some(literal) = literal {
            let line = masked.matches('\n').count() + 1;
            strings.push((line, literal.to_owned()));
        }
        if length == first.len_utf8() {
            masked.push(first);
        } else {
            // A quote stays on the line where a literal begins, so that the line does not count as blank.
            masked.extend(literal.map(|_| '"'));
            let blank = piece.chars().skip(usize::from(literal.is_some()));
            masked.extend(blank.map(|character| if character == '\n' { '\n' } else { ' ' }));
        }
        rest = &rest[length..];
    }
    (masked, strings)
}

/// The length of the comment or literal that `rest` begins with, else of its first character; a string's inside.
fn token(rest: &str, before: Option<char>) -> (usize, Option<&str>) {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (rest.find("*/").map_or(rest.len(), |end| end + 2), None);
    }
    let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
    if rest.starts_with('r') && !in_word {
        let hashes = rest[1..].chars().take_while(|character| *character == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = &rest[hashes + 2..];
            let end = inside.find(&close).unwrap_or(inside.len());
            return ((hashes + 2 + end + close.len()).min(rest.len()), Some(&inside[..end]));
        }
    }
    if let Some(inside) = rest.strip_prefix('"') {
        let end = closing(inside, '"').unwrap_or(inside.len());
        return ((end + 2).min(rest.len()), Some(&inside[..end]));
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // 'a' or '\n', not the lifetime 'a.
        let mut characters = inside.chars();
        let quoted = characters.next();
        if quoted == Some('\\') || characters.next() == Some('\'') {
            return (closing(inside, '\'').map_or(first, |end| end + 2), None);
        }
    }
    (first, None)
}

/// Where the quote that ends a literal stands, past escapes.
fn closing(inside: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    inside
        .char_indices()
        .find(|(_, character)| {
            let ends = !escaped && *character == quote;
            escaped = !escaped && *character == '\\';
            ends
        })
        .map(|(at, _)| at)
}

mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(PathBuf::from(path), text)
    }

    fn uses(path: &str, text: &str) -> Vec<String> {
        let source = source(path, text);
        crate_uses(&source.code, depth_of(&source.path)).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn arrows_are_seen_in_every_spelling() {
        assert_eq!(uses("hot/x.rs", "use crate::cold::Store;"), ["cold"]);
        assert_eq!(uses("hot/x.rs", "use crate::{\n  cold::{a, b},\n  db,\n};"), ["cold", "db"]);
        assert_eq!(uses("hot/x.rs", "fn f() { crate::cold::get(); }"), ["cold"]);
        assert_eq!(uses("hot/x.rs", "use super::super::cold::Store;"), ["cold"]);
        assert_eq!(uses("hot/mod.rs", "use super::cold::Store;"), ["cold"]);
        assert_eq!(uses("main.rs", "use logtier::cold;"), ["cold"]);
        assert_eq!(
            uses("hot/x.rs", "use super::cold::Store; use xcrate::a; // crate::b\nconst A: &str = \"crate::c\";"),
            [""; 0]
        );
    }

    #[test]
    fn tests_are_free() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  use crate::cold;\n  fn b() { let c = '}'; todo!() }\n}\nuse crate::db;\n";
        assert_eq!(uses("hot/x.rs", text), ["db"]);
        assert!(!source("x.rs", text).code.contains("todo!"));
        assert_eq!(source("x.rs", "fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n").code, "fn a() {}");
    }

    #[test]
    fn arrows_follow_the_table() {
        assert!(allowed("archive", "cold") && allowed("hot", "telemetry") && allowed("cli", "archive"));
        assert!(!allowed("hot", "cold") && !allowed("cold", "hot") && !allowed("model", "clock"));
        assert!(!allowed("ingest", "app") && !allowed("unheard_of", "db"));
    }

    #[test]
    fn sql_is_recognised_and_prose_is_not() {
        let found = |text: &str| source("hot/x.rs", text).strings.iter().any(|(_, text)| looks_like_sql(text));
        assert!(found("fn f() { q(\"/* f */ SELECT a FROM b\") }"));
        assert!(found("fn f() { q(r#\"\n  UPDATE t\n  SET a = 1\"#) }"));
        assert!(!found("fn f() { say(\"select a shard, then update the set\") }"));
        assert!(!found("#[cfg(test)]\nmod tests { fn f() { q(\"SELECT a FROM b\") } }"));
        assert!(is_sql_file(Path::new("hot/sql.rs")) && is_sql_file(Path::new("catalog/sql/lease.rs")));
        assert!(is_sql_file(Path::new("catalog/sql_audit.rs")));
        assert!(!is_sql_file(Path::new("hot/mysql.rs")));
    }
}
