//! Label selectors, as people write them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;

use crate::validate::{Problem, cut};

/// The rules of the API server's own `ValidateLabelSelector`, which it applies to built-in kinds only.
pub(crate) fn read(given: &LabelSelector, problems: &mut Vec<Problem>) -> Option<Selector> {
    let before = problems.len();
    let mut report = |field: String, message: String| problems.push(Problem { field, message });
    for (key, value) in given.match_labels.iter().flatten() {
        let field = format!("spec.nodeSelector.matchLabels[{}]", cut(key));
        if !is_label_key(key) {
            report(field.clone(), format!("{:?} is no label key: {LABEL_KEY}", cut(key)));
        }
        if !is_label_value(value) {
            report(field, format!("{:?} is no label value: {LABEL_VALUE}", cut(value)));
        }
    }
    for (number, requirement) in given.match_expressions.iter().flatten().enumerate() {
        let field = format!("spec.nodeSelector.matchExpressions[{number}]");
        if !is_label_key(&requirement.key) {
            report(
                format!("{field}.key"),
                format!("{:?} is no label key: {LABEL_KEY}", cut(&requirement.key)),
            );
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                report(
                    format!("{field}.values"),
                    format!("{} needs at least one value", requirement.operator),
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                report(format!("{field}.values"), format!("{} takes no values", requirement.operator));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => report(
                format!("{field}.operator"),
                format!("{:?} is no operator: write In, NotIn, Exists or DoesNotExist", cut(other)),
            ),
        }
        if let Some(value) = values.iter().find(|value| !is_label_value(value)) {
            report(format!("{field}.values"), format!("{:?} is no label value: {LABEL_VALUE}", cut(value)));
        }
    }
    if problems.len() > before {
        return None;
    }
    match Selector::try_from(given.clone()) {
        Ok(selector) => Some(selector),
        Err(error) => {
            problems.push(Problem { field: "spec.nodeSelector".to_owned(), message: error.to_string() });
            None
        }
    }
}

const LABEL_KEY: &str = "write [prefix/]name, such as pool or example.com/pool";
const LABEL_VALUE: &str =
    "write at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends";

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_subdomain = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|part| {
                let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
            })
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && ends(value.bytes().next())
        && ends(value.bytes().last())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use larder_crds::ImageCacheSpec;

    use super::*;
    use crate::validate::ValidCache;

    fn expression(key: &str, operator: &str, values: &[&str]) -> ImageCacheSpec {
        let requirement = LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: (!values.is_empty()).then(|| values.iter().map(|&value| value.to_owned()).collect()),
        };
        let node_selector = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
        ImageCacheSpec { node_selector: Some(node_selector), ..Default::default() }
    }

    #[test]
    fn selectors_follow_the_rules_of_built_in_kinds() {
        for (key, operator, values, field) in [
            ("pool", "In", &[] as &[&str], Some("values")),
            ("pool", "Exists", &["web"], Some("values")),
            ("pool", "in", &["web"], Some("operator")),
            ("po ol", "Exists", &[], Some("key")),
            ("Example.com/pool", "Exists", &[], Some("key")),
            ("pool", "In", &["-web"], Some("values")),
            ("example.com/pool", "In", &["web", ""], None),
            ("pool", "DoesNotExist", &[], None),
        ] {
            let found = ValidCache::new(&expression(key, operator, values)).err();
            let expected = field.map(|field| format!("spec.nodeSelector.matchExpressions[0].{field}"));
            assert_eq!(
                found.map(|problems| problems[0].field.clone()),
                expected,
                "{key} {operator} {values:?}"
            );
        }
    }
}
