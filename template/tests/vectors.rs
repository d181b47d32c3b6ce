//! Every template of `vectors.json` renders as docker's own packages render it. `vectors/` holds the program
//! that writes the file: `cd template/tests/vectors && go run . > ../vectors.json`.

use std::collections::BTreeMap;

use larder_template::{Format, IMAGE, Template, TemplateError};
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Deserialize)]
struct Vectors {
    documents: BTreeMap<String, Json>,
    headers: Vec<(String, String)>,
    rows: Vec<Json>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    mode: Mode,
    #[serde(default)]
    data: String,
    template: String,
    want: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Plain,
    Strict,
    Inspect,
    Table,
}

fn render(vectors: &Vectors, case: &Case) -> Result<String, TemplateError> {
    let document = vectors.documents.get(&case.data).unwrap_or(&Json::Null);
    match case.mode {
        Mode::Plain => Template::parse(&case.template)?.render(document),
        Mode::Strict => Template::parse(&case.template)?.render_strict(document),
        Mode::Inspect => Ok(Template::parse(&case.template)?.inspect(document, &IMAGE)? + "\n"),
        Mode::Table => {
            let headers: Vec<_> =
                vectors.headers.iter().map(|(name, title)| (name.as_str(), title.as_str())).collect();
            Format::parse(&case.template)?.render(&headers, &vectors.rows)
        }
    }
}

#[test]
fn renders_as_docker_does() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert!(vectors.cases.len() > 900, "the cases are missing from vectors.json");
    let mut wrong = Vec::new();
    for case in &vectors.cases {
        let got = render(&vectors, case);
        let got = got.map_err(|e| {
            // docker's inspect and listings have the prefix, Go's templates alone do not.
            let text = e.to_string();
            if matches!(case.mode, Mode::Plain | Mode::Strict) {
                text.replacen("template parsing error: ", "", 1)
            } else {
                text
            }
        });
        let want = if case.error.is_empty() { Ok(case.want.clone()) } else { Err(case.error.clone()) };
        if got != want {
            wrong.push(format!("{} {:?}\n   got {got:?}\n  want {want:?}", case.data, case.template));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), vectors.cases.len(), wrong.join("\n"));
}
