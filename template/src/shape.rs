//! The types that JSON does not show, so that an absent value renders as docker renders it.
//!
//! docker runs its templates over Go structs. There a label map that is missing is an empty map of strings:
//! `{{index .Config.Labels "x"}}` is the empty string and `{{.Config.Env}}` is `[]`, though the JSON has no
//! such keys at all.

/// What type a JSON value stands for.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Whatever it is in the JSON.
    Any,
    /// A boolean, false when absent.
    Bool,
    /// A whole number, 0 when absent.
    Int,
    /// A string, empty when absent.
    Text,
    /// A list, empty when absent.
    List(&'static Shape),
    /// A map with keys of any name, empty when absent.
    Map(&'static Shape),
    /// An object with these fields and no others, in this order.
    Struct(&'static [Field]),
}

/// A field of [`Shape::Struct`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key in JSON, and its name in templates.
    pub key: &'static str,
    /// Another name that templates may use: docker's own for the same field.
    pub alias: &'static str,
    /// Its type.
    pub shape: Shape,
}

impl Field {
    /// A field that templates call by its JSON key.
    #[must_use]
    pub const fn new(key: &'static str, shape: Shape) -> Self {
        Self { key, alias: key, shape }
    }

    /// The same with a second name.
    #[must_use]
    pub const fn alias(self, alias: &'static str) -> Self {
        Self { alias, ..self }
    }
}

impl Shape {
    /// The type as Go writes it.
    pub(crate) fn type_name(self) -> String {
        match self {
            Self::Any => "interface {}".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int64".to_owned(),
            Self::Text => "string".to_owned(),
            Self::List(element) => format!("[]{}", element.type_name()),
            Self::Map(element) => format!("map[string]{}", element.type_name()),
            Self::Struct(_) => "struct".to_owned(),
        }
    }
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const SET: Shape = Shape::Map(&Shape::Struct(&[]));
const OBJECT: Shape = Shape::Map(&Shape::Any);

/// What `docker image inspect` shows of an image.
pub const IMAGE: Shape = Shape::Struct(&[
    Field::new("Id", Shape::Text).alias("ID"),
    Field::new("RepoTags", TEXTS),
    Field::new("RepoDigests", TEXTS),
    Field::new("Comment", Shape::Text),
    Field::new("Created", Shape::Text),
    Field::new("Author", Shape::Text),
    Field::new("Config", IMAGE_CONFIG),
    Field::new("Architecture", Shape::Text),
    Field::new("Variant", Shape::Text),
    Field::new("Os", Shape::Text),
    Field::new("OsVersion", Shape::Text),
    Field::new("Size", Shape::Int),
    Field::new("GraphDriver", Shape::Any),
    Field::new("RootFS", Shape::Struct(&[Field::new("Type", Shape::Text), Field::new("Layers", TEXTS)])),
    Field::new("Metadata", Shape::Struct(&[Field::new("LastTagTime", Shape::Text)])),
    Field::new("Descriptor", Shape::Any),
    Field::new("Manifests", Shape::List(&Shape::Any)),
    Field::new("Identity", Shape::Any),
]);

/// The `Config` of [`IMAGE`]: the OCI image configuration's and docker's own fields.
const IMAGE_CONFIG: Shape = Shape::Struct(&[
    Field::new("User", Shape::Text),
    Field::new("ExposedPorts", SET),
    Field::new("Env", TEXTS),
    Field::new("Entrypoint", TEXTS),
    Field::new("Cmd", TEXTS),
    Field::new("Volumes", SET),
    Field::new("WorkingDir", Shape::Text),
    Field::new("Labels", Shape::Map(&Shape::Text)),
    Field::new("StopSignal", Shape::Text),
    Field::new("ArgsEscaped", Shape::Bool),
    Field::new("Healthcheck", OBJECT),
    Field::new("OnBuild", TEXTS),
    Field::new("Shell", TEXTS),
]);
