//! Rules for what is to go from the nodes.

use larder_crds::RemovalRule;
use larder_oci::{ImageName, Pattern};

use crate::validate::{Problem, WantedImage, cut};

/// Names that have nothing in common: what matches them all matches every image.
const STRANGERS: [&str; 3] =
    ["docker.io/library/a:1", "zq.example:5000/deep/er/n0/x7:v9.8", "ghcr.io/vk/j:latest"];

/// Checks rules, given the images that the same cache wants; names become canonical.
pub(crate) fn read(
    rules: &[RemovalRule],
    wanted: &[WantedImage],
    problems: &mut Vec<Problem>,
) -> Vec<RemovalRule> {
    let mut read = Vec::with_capacity(rules.len());
    for (number, rule) in rules.iter().enumerate() {
        let field = |name: &str| format!("spec.remove[{number}].{name}");
        let pattern = match Pattern::removing(&rule.image) {
            Ok(pattern) => pattern,
            Err(error) => {
                problems.push(Problem { field: field("image"), message: error.to_string() });
                continue;
            }
        };
        if matches_everything(&pattern) {
            let message = format!(
                "{:?} matches every image: write at least a registry or a repository, such as registry.corp/team/*",
                cut(&rule.image)
            );
            problems.push(Problem { field: field("image"), message });
        }
        let canonical = rule.image.parse::<ImageName>().ok().map(|name| name.to_string());
        if let Some(image) = wanted.iter().find(|image| canonical.as_ref() == Some(&image.target.image)) {
            let message = format!("{:?} is both wanted (spec.images) and to be removed", cut(&image.spelled));
            problems.push(Problem { field: field("image"), message });
        }
        for (place, except) in rule.except.iter().enumerate() {
            if let Err(error) = Pattern::keeping(except) {
                let field = format!("spec.remove[{number}].except[{place}]");
                problems.push(Problem { field, message: error.to_string() });
            }
        }
        let image = canonical.unwrap_or_else(|| rule.image.clone());
        read.push(RemovalRule { image, ..rule.clone() });
    }
    read
}

pub(crate) fn matches_everything(pattern: &Pattern) -> bool {
    let names = STRANGERS.iter().filter_map(|name| name.parse::<ImageName>().ok());
    names.filter(|name| pattern.matches(name)).count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(image: &str) -> Vec<String> {
        let mut problems = Vec::new();
        read(&[RemovalRule { image: image.to_owned(), ..RemovalRule::default() }], &[], &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_matches_everything_is_refused() {
        for wide in ["**", "**/*", "*/**", "[a-z]*/**", "*.io/**"] {
            assert!(problems(wide).iter().any(|problem| problem.contains("matches every image")), "{wide}");
        }
        for narrow in ["nginx:*", "docker.io/**", "registry.corp/team/*", "**/nginx:1.*", "*:v1"] {
            assert_eq!(problems(narrow), [""; 0], "{narrow}");
        }
        assert!(problems("Nginx")[0].starts_with("spec.remove[0].image: "));
        assert!(problems("**:*")[0].contains("invalid pattern"), "** is a part between two slashes");
        assert!(problems("a[")[0].contains("invalid pattern"));
    }
}
