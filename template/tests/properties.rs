//! What holds for any template: it never panics, takes bounded time, memory and stack, and text is left
//! alone.

#![allow(clippy::unwrap_used, reason = "tests")]

use larder_template::{Format, IMAGE, Template, TemplateError, align};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn data() -> Json {
    json!({
        "s": "text with ünïcode 世界", "i": 3, "f": 2.5, "t": true, "nil": null,
        "list": ["a", "b", 1, null, [2]], "m": {"k": {"deep": "v"}, "n": 1}, "empty": [],
    })
}

/// Runs everything that a user's format can reach.
fn run(text: &str) {
    if let Ok(template) = Template::parse(text) {
        let _ = template.render(&data());
        let _ = template.render_strict(&data());
        let _ = template.inspect(&data(), &IMAGE);
    }
    if let Ok(format) = Format::parse(text) {
        let _ = format.render(&[("s", "S"), ("list", "LIST")], &[data(), data()]);
    }
}

/// Pieces of which templates are made, so that random ones get past the parser.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[ -~]{0,6}",
        prop::sample::select(vec![
            "{{",
            "}}",
            "{{- ",
            " -}}",
            "(",
            ")",
            "|",
            ".",
            ".s",
            ".list",
            ".m.k",
            "$",
            "$x",
            ":=",
            "=",
            ",",
            " ",
            "\n",
            "nil",
            "true",
            "if ",
            "else ",
            "end",
            "range ",
            "with ",
            "define \"a\"",
            "template \"a\" ",
            "block \"b\" ",
            "break",
            "continue",
            "\"%5.2v\"",
            "\"\\u00e9\"",
            "`raw`",
            "'x'",
            "1",
            "-7",
            "0x1F",
            "1e3",
            "999999999",
            "/* c */",
            "printf ",
            "index ",
            "slice ",
            "join ",
            "split ",
            "json ",
            "truncate ",
            "pad ",
            "upper ",
            "title ",
            "len ",
            "eq ",
            "lt ",
            "and ",
            "or ",
            "not ",
            "print ",
            "html ",
            "js ",
            "call ",
            "😀",
            "\\t",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_one_error(text in any::<String>()) {
        run(&text);
    }

    #[test]
    fn any_pieces_are_a_template_or_one_error(pieces in prop::collection::vec(piece(), 0..30)) {
        run(&pieces.concat());
    }

    #[test]
    fn any_action_is_a_template_or_one_error(pieces in prop::collection::vec(piece(), 1..8)) {
        run(&format!("{{{{{}}}}}", pieces.join(" ")));
    }

    #[test]
    fn text_is_left_alone(text in any::<String>()) {
        prop_assume!(!text.contains("{{"));
        prop_assert_eq!(Template::parse(&text).unwrap().render(&data()).unwrap(), text);
    }

    #[test]
    fn a_string_constant_says_what_it_quotes(text in any::<String>()) {
        // JSON's escapes are Go's as well, but for characters beyond the first plane, which serde_json leaves
        // as they are.
        let quoted = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(Template::parse(&format!("{{{{{quoted}}}}}")).unwrap().render(&data()).unwrap(), text);
    }

    #[test]
    fn json_reads_back(value in any_json()) {
        let text = Template::parse("{{json .}}").unwrap().render(&value).unwrap();
        prop_assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), value);
    }

    #[test]
    fn printf_takes_any_format(format in "[%a-zA-Z0-9.*+# \\[\\]-]{0,20}") {
        let format = serde_json::to_string(&format).unwrap();
        run(&format!("{{{{printf {format} .s .i .f .list .m .nil}}}}"));
    }

    #[test]
    fn printf_takes_any_width_and_precision(
        flags in "[+ #0-]{0,2}",
        width in 0..1_100_000,
        precision in 0..1_100_000,
        verb in "[a-zA-Z]",
    ) {
        run(&format!("{{{{printf \"%{flags}{width}.{precision}{verb}\" .f}}}}"));
        run(&format!("{{{{printf \"%{flags}.{precision}{verb}\" .i}}}}"));
    }

    #[test]
    fn aligned_columns_keep_every_cell(
        cells in prop::collection::vec(prop::collection::vec("[a-z]{1,12}", 3), 1..6),
    ) {
        let text: String = cells.iter().map(|row| row.join("\t") + "\n").collect();
        let aligned = align(&text);
        let split: Vec<Vec<String>> =
            aligned.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        prop_assert_eq!(&split, &cells);
        // Every column is ten wide at least, and as wide as its widest cell and three spaces.
        let width = |column: usize| cells.iter().map(|row| row[column].len() + 3).max().unwrap_or(0).max(10);
        let (second, third) = (width(0), width(0) + width(1));
        for (line, row) in aligned.lines().zip(&cells) {
            prop_assert!(line.get(second..).is_some_and(|rest| rest.starts_with(&row[1])), "{}", line);
            prop_assert!(line.get(third..).is_some_and(|rest| rest == row[2]), "{}", line);
        }
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        // Not whole, which would come back as another type, and short: serde_json reads long ones with an
        // error in the last digit.
        any::<i32>().prop_map(|n| Json::from(f64::from(n) + 0.125)),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Json::from_iter),
        ]
    })
}

fn error_of(text: &str) -> String {
    Template::parse(text).and_then(|template| template.render(&data())).unwrap_err().to_string()
}

#[test]
fn parse_and_execution_errors_are_told_apart() {
    let unclosed = Template::parse("{{.Os").unwrap_err();
    assert_eq!(unclosed, TemplateError::Parse("template: :1: unclosed action".to_owned()));
    assert_eq!(unclosed.to_string(), "template parsing error: template: :1: unclosed action");
    let missing = Template::parse("{{.Foo}}").unwrap().inspect(&data(), &IMAGE).unwrap_err();
    let text = "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"";
    assert_eq!(missing, TemplateError::Execute(text.to_owned()));
}

#[test]
fn templates_that_call_themselves_end() {
    let nested = ["(", "(printf "].map(|open| {
        let value = format!("{}.{}", open.repeat(40), ")".repeat(40));
        let call = "{{if true}}{{range 1}}{{template \"r\" 1}}{{end}}{{end}}";
        format!("{{{{define \"r\"}}}}{{{{with {value}}}}}{call}{{{{end}}}}{{{{end}}}}{{{{template \"r\" \"%v\"}}}}")
    });
    for text in [
        "{{define \"r\"}}{{template \"r\" .}}{{end}}{{template \"r\" .}}",
        "x{{template \"\" .}}",
        &nested[0],
    ] {
        let error = error_of(text);
        assert!(error.contains("exceeded maximum template depth"), "{error}");
    }
    run(&nested[1]);
}

#[test]
fn deep_nesting_is_one_error() {
    for (open, close) in [
        ("{{if true}}", "{{end}}"),
        ("{{range 1}}", "{{end}}"),
        ("{{with 1}}{{else}}", "{{end}}"),
        ("{{if 1}}{{else if 1}}", "{{end}}"),
    ] {
        let error = error_of(&format!("{}{}", open.repeat(100_000), close.repeat(100_000)));
        assert!(error.contains("max expression depth exceeded"), "{error}");
        Template::parse(&format!("{}x{}", open.repeat(20), close.repeat(20)))
            .unwrap()
            .render(&data())
            .unwrap();
    }
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(error_of(&parens).contains("max expression depth exceeded"));
    let chain = format!("{{{{if .nil}}}}{}{{{{end}}}}", "{{else if .nil}}".repeat(100_000));
    assert!(error_of(&chain).contains("max expression depth exceeded"));
}

#[test]
fn endless_loops_end() {
    for text in [
        "{{range 9223372036854775807}}{{end}}",
        "{{range 99999}}{{range 99999}}{{$x := 1}}{{end}}{{end}}",
        "{{range 9223372036854775807}}{{if (len .)}}{{else}}{{continue}}{{end}}{{end}}",
    ] {
        let error = error_of(text);
        assert!(error.contains("steps") || error.contains("len of type int"), "{error}");
    }
}

#[test]
fn text_that_grows_without_end_is_one_error() {
    for text in [
        "{{range 1000000}}{{printf \"%1000000d\" 1}}{{end}}",
        "{{$x := \"x\"}}{{range 100}}{{$x = print $x $x}}{{end}}",
        "{{$x := printf \"%1000000d\" 1}}{{range 1000}}{{$x = join (split $x \"\") $x}}{{end}}",
        "{{range 1000}}{{$x := printf \"%1000000d\" 1}}{{$y := split $x \"\"}}{{end}}",
        "{{pad \"x\" 9223372036854775807 9223372036854775807}}",
        "{{range 100000}}{{json (printf \"%999999s\" \"\")}}{{end}}",
    ] {
        let error = error_of(text);
        assert!(error.contains("makes more than 64 MiB of text"), "{error}");
    }
}

/// Lengths and ends as Go's `fmt` gives them: Rust's own formatting stops at 65,535 digits, Go's at a million.
#[test]
fn a_precision_may_be_as_large_as_in_go() {
    for (format, of, length, start, end) in [
        ("%.70000f", ".f", 70_002, "2.50000000", "000000"),
        ("%.70000e", ".f", 70_006, "2.50000000", "00e+00"),
        ("%.70000g", ".f", 3, "2.5", "2.5"),
        ("%+.999999e", ".f", 1_000_006, "+2.5000000", "00e+00"),
        ("%099999.70000f", ".f", 99_999, "0000000000", "000000"),
        ("%.70000U", ".i", 70_002, "U+00000000", "000003"),
    ] {
        let text =
            Template::parse(&format!("{{{{printf \"{format}\" {of}}}}}")).unwrap().render(&data()).unwrap();
        assert_eq!(text.len(), length, "{format}");
        assert!(text.starts_with(start) && text.ends_with(end), "{format}");
    }
}

#[test]
fn table_alone_and_headers_of_columns() {
    let rows = [json!({"Name": "a", "Size": "1kB"}), json!({"Name": "longer-name", "Size": "20MB"})];
    let headers = [("Name", "NAME"), ("Size", "SIZE")];
    let table = Format::parse("table {{.Name}}\\t{{upper .Size}}").unwrap();
    assert!(table.is_table());
    assert_eq!(
        table.render(&headers, &rows).unwrap(),
        "NAME          SIZE\na             1KB\nlonger-name   20MB\n"
    );
    assert_eq!(table.render(&headers, &[]).unwrap(), "NAME      SIZE\n");
    let error = Format::parse("{{.Nope}}").unwrap().render(&headers, &rows).unwrap_err();
    assert!(error.to_string().ends_with("map has no entry for key \"Nope\""), "{error}");
}
