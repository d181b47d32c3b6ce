//! How a command ends.

use std::fmt;

use larder_registry::{CredentialsError, RegistryError};
use larder_store::StoreError;
use larder_template::TemplateError;

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// Something failed.
    pub const FAILURE: Self = Self(1);
    /// A `--format` that is no template.
    pub const BAD_FORMAT: Self = Self(64);
    /// A flag that does not exist, or that does not take the value.
    pub const BAD_FLAG: Self = Self(125);
    /// Nobody reads the output any more: what a shell reports for a program that SIGPIPE ended.
    pub const PIPE: Self = Self(128 + 13);
}

/// Why a command failed: what to print on stderr, a line or more each, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to print. Empty where all has been said.
    pub messages: Vec<String>,
    /// The exit status.
    pub status: Status,
}

impl Failure {
    /// A message that is printed as it is: what docker's client says by itself.
    #[must_use]
    pub fn new(message: impl fmt::Display) -> Self {
        Self { messages: vec![message.to_string()], status: Status::FAILURE }
    }

    /// A message that is printed after `Error: `: where docker has `Error response from daemon: `.
    #[must_use]
    pub fn response(message: impl fmt::Display) -> Self {
        Self::new(format_args!("Error: {message}"))
    }

    /// A flag's value that cannot be used.
    #[must_use]
    pub fn bad_flag(message: impl fmt::Display) -> Self {
        Self { status: Status::BAD_FLAG, ..Self::new(message) }
    }

    /// Nothing more to say.
    #[must_use]
    pub fn silent(status: Status) -> Self {
        Self { messages: Vec::new(), status }
    }

    /// All of several failures, if there are any: every argument was tried. The first one's status.
    pub fn join(failures: Vec<Self>) -> Result<(), Self> {
        let Some(first) = failures.first() else { return Ok(()) };
        let status = first.status;
        Err(Self { messages: failures.into_iter().flat_map(|failure| failure.messages).collect(), status })
    }

    /// docker's words for a name or an ID that stands for no image.
    #[must_use]
    pub fn no_such_image(name: impl fmt::Display) -> Self {
        Self::response(format_args!("No such image: {name}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.messages.join("\n"))
    }
}

impl std::error::Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::response(error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::response(error)
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        Self::response(error)
    }
}

impl From<larder_oci::pattern::InvalidPattern> for Failure {
    fn from(error: larder_oci::pattern::InvalidPattern) -> Self {
        Self::new(error)
    }
}

impl From<larder_oci::InvalidName> for Failure {
    fn from(error: larder_oci::InvalidName) -> Self {
        Self::new(error)
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        let status = match &error {
            TemplateError::Parse(_) => Status::BAD_FORMAT,
            TemplateError::Execute(_) => Status::FAILURE,
        };
        Self { status, ..Self::new(error) }
    }
}
