//! `larder login`: try a login, then keep it where docker does.

use std::path::Path;

use larder_registry::{Credential, RegistryError, SecretString, StoredIn};

use crate::{Context, Failure, Status, prompt};

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry, such as registry.corp:5000 [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// The user name
    #[arg(long, short)]
    pub username: Option<String>,
    /// The password or access token; other users can see it: --password-stdin is safer
    #[arg(long, short)]
    pub password: Option<String>,
    /// Take the password from stdin
    #[arg(long)]
    pub password_stdin: bool,
}

/// Tries the login against the registry; only one that it takes is stored.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    if args.password.is_some() {
        context.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if args.password.is_some() && args.password_stdin {
        return Err(Failure::new("conflicting options: cannot specify both --password and --password-stdin"));
    }
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::new("the --password-stdin option requires --username to be set"));
    }
    let server = registry_of(args.server.as_deref().unwrap_or_default());
    let logins = context.logins()?;
    let registry = context.registry()?;
    if args.username.is_none()
        && args.password.is_none()
        && let Some(known) = logins.get(&server).await?
    {
        context.line("Authenticating with existing credentials...")?;
        match registry.login(&server, &known).await {
            Ok(_) => return succeeded(context),
            Err(error @ RegistryError::LoginRefused { .. }) => {
                context.note(format_args!("Login did not succeed: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let credential = ask(args).await?;
    let outcome = registry.login(&server, &credential).await.map_err(|error| refused(&server, error))?;
    if !outcome.checked {
        context.note(format_args!("{server} lets everybody in: it did not look at the login"));
    }
    if let StoredIn::File(path) = logins.store(&server, &outcome.credential).await? {
        warn_of_file(context, &path);
    }
    succeeded(context)
}

fn succeeded(context: &Context) -> Result<Status, Failure> {
    context.line("Login Succeeded")?;
    Ok(Status::SUCCESS)
}

/// User name and password, from the arguments, stdin or the terminal.
async fn ask(args: Args) -> Result<Credential, Failure> {
    let username = match args.username {
        Some(username) => username,
        None => prompt::ask("Username: ".to_owned(), false).await?,
    };
    if username.is_empty() {
        return Err(Failure::response("username is required"));
    }
    let password = match args.password {
        Some(password) => password,
        None if args.password_stdin => prompt::secret_from_stdin().await?,
        None => prompt::ask("Password: ".to_owned(), true).await?,
    };
    if password.is_empty() {
        return Err(Failure::response("password is required"));
    }
    Ok(Credential::Password { username, password: SecretString::from(password) })
}

fn refused(server: &str, error: RegistryError) -> Failure {
    match error {
        RegistryError::LoginRefused { by, .. } => Failure::response(format_args!(
            "login attempt to {server} failed: {by} refuses it: unauthorized: incorrect username or password"
        )),
        other => other.into(),
    }
}

/// docker's warning for a login that stands in the file.
fn warn_of_file(context: &Context, path: &Path) {
    context.note(format_args!(
        "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
         Configure a credential helper to remove this warning. See\n\
         https://docs.docker.com/go/credential-store/\n",
        path.display()
    ));
}

/// The registry as image names begin with it, out of what people write: a URL, a host, or nothing for Docker Hub.
pub(crate) fn registry_of(server: &str) -> String {
    let host = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_in_many_ways() {
        for (server, registry) in [
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry.corp:5000", "registry.corp:5000"),
            ("https://registry.corp/v2/", "registry.corp"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(server), registry, "{server}");
        }
    }
}
