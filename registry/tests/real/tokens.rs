//! A registry with a token server: ours gives out the tokens, docker-registry itself checks them.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use larder_registry::{
    BlobFile, Credential, Credentials, CredentialsError, ExposeSecret, PushOptions, PushOutcome, Registry,
    RegistryError, RegistryOptions,
};
use larder_tests::{Scratch, certificates::Authority};
use reqwest::Url;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};

use crate::support::{Server, Setup, client, name, password, random_bytes, read};

const IDENTITY_TOKEN: &str = "long-lived";

/// One request to the token server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    method: &'static str,
    user: Option<String>,
    scopes: Vec<String>,
}

/// What the token server does, and what it was asked.
struct Issuer {
    key: EcdsaKeyPair,
    certificate: String,
    asked: Mutex<Vec<Asked>>,
    /// So many tokens are over when they are given out, whatever `expires_in` says.
    stale: Mutex<u32>,
    expires_in: Mutex<u64>,
}

impl Issuer {
    fn new(authority: &Authority) -> Self {
        let identity = authority.client("token server", None).unwrap();
        let der = |pem: &str| {
            BASE64_STANDARD
                .decode(pem.lines().filter(|line| !line.starts_with('-')).map(str::trim).collect::<String>())
                .unwrap()
        };
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &der(&identity.key),
            &SystemRandom::new(),
        )
        .unwrap();
        Self {
            key,
            certificate: BASE64_STANDARD.encode(der(&identity.certificate)),
            asked: Mutex::default(),
            stale: Mutex::new(0),
            expires_in: Mutex::new(300),
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// alice may do all, bob may read, and everybody may read what is public.
    fn answer(
        &self,
        method: &'static str,
        user: Option<String>,
        scopes: Vec<String>,
        offline: bool,
    ) -> String {
        let may = |user: &Option<String>, repository: &str, action: &str| match user.as_deref() {
            Some("alice") => true,
            Some(_) => action == "pull",
            None => action == "pull" && repository.starts_with("public/"),
        };
        let access: Vec<_> = scopes
            .iter()
            .filter_map(|scope| {
                let parts: Vec<_> = scope.split(':').collect();
                let [kind, repository, actions] = parts.as_slice() else { return None };
                let actions = actions.split(',').filter(|action| may(&user, repository, action));
                let actions = actions.map(|action| format!("{action:?}")).collect::<Vec<_>>().join(",");
                Some(format!(r#"{{"type":"{kind}","name":"{repository}","actions":[{actions}]}}"#))
            })
            .collect();
        self.asked.lock().unwrap().push(Asked { method, user, scopes });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut stale = self.stale.lock().unwrap();
        let ends = if *stale > 0 { now - 3600 } else { now + 3600 };
        *stale = stale.saturating_sub(1);
        let claims = format!(
            r#"{{"iss":"test","sub":"","aud":"registry","nbf":{},"iat":{},"exp":{ends},"jti":"{}","access":[{}]}}"#,
            now - 7200,
            now - 7200,
            self.asked.lock().unwrap().len(),
            access.join(",")
        );
        let head = format!(r#"{{"typ":"JWT","alg":"ES256","x5c":["{}"]}}"#, self.certificate);
        let signed =
            format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(head), BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let refresh = if offline { format!(r#","refresh_token":"{IDENTITY_TOKEN}""#) } else { String::new() };
        format!(
            r#"{{"token":"{signed}.{}","expires_in":{}{refresh}}}"#,
            BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()),
            self.expires_in.lock().unwrap()
        )
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    Url::parse(&format!("form:?{query}")).unwrap().query_pairs().into_owned().collect()
}

/// GET with Basic or without a login.
async fn by_get(
    State(issuer): State<Arc<Issuer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let query = pairs(&query.unwrap_or_default());
    assert!(query.iter().any(|(key, value)| key == "service" && value == "registry"));
    let user = match headers.get("authorization").map(|value| value.to_str().unwrap()) {
        None => None,
        Some(header) => {
            let login = BASE64_STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
            match login.as_slice() {
                b"alice:wonderland" => Some("alice".to_owned()),
                b"bob:builder" => Some("bob".to_owned()),
                _ => return Err(StatusCode::UNAUTHORIZED),
            }
        }
    };
    let scopes = query.iter().filter(|(key, _)| key == "scope").map(|(_, scope)| scope.clone()).collect();
    let offline = query.iter().any(|(key, value)| key == "offline_token" && value == "true");
    Ok(issuer.answer("GET", user, scopes, offline))
}

/// POST with a refresh token.
async fn by_post(State(issuer): State<Arc<Issuer>>, body: String) -> Result<String, StatusCode> {
    let form = pairs(&body);
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((field("grant_type"), field("service")), (Some("refresh_token"), Some("registry")));
    if field("refresh_token") != Some(IDENTITY_TOKEN) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let scopes = field("scope").unwrap().split(' ').map(str::to_owned).collect();
    Ok(issuer.answer("POST", Some("alice".to_owned()), scopes, false))
}

struct Place {
    server: Server,
    issuer: Arc<Issuer>,
    _scratch: Scratch,
}

impl Place {
    async fn new() -> Self {
        let authority = Authority::new("tokens").unwrap();
        let issuer = Arc::new(Issuer::new(&authority));
        let router = Router::new().route("/token", get(by_get).post(by_post)).with_state(Arc::clone(&issuer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let scratch = Scratch::new("tokens").unwrap();
        let bundle = scratch.write("bundle.crt", authority.pem()).unwrap();
        let more = format!(
            "auth: {{token: {{realm: \"http://{host}/token\", service: registry, issuer: test, rootcertbundle: {}}}}}\n",
            bundle.display()
        );
        let server = tokio::task::spawn_blocking(|| Server::start(&Setup { more, ..Setup::default() }));
        Self { server: server.await.unwrap(), issuer, _scratch: scratch }
    }

    /// Puts a blob into a repository, and forgets what that took.
    async fn with_blob(&self, repository: &str, seed: u64) -> larder_oci::Digest {
        let (digest, bytes) = random_bytes(seed, 1000);
        let image = name(&self.server.host(), repository);
        let registry = with_login(Some(password("alice", "wonderland")));
        registry.push_blob(&image, &digest, 1000, &bytes, &PushOptions::default()).await.unwrap();
        self.issuer.asked.lock().unwrap().clear();
        digest
    }
}

fn with_login(credential: Option<Credential>) -> Registry {
    client(RegistryOptions { credentials: Arc::new(Fixed(credential)), ..RegistryOptions::default() })
}

#[derive(Debug)]
struct Fixed(Option<Credential>);

impl Credentials for Fixed {
    fn find<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> futures::future::BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_a_repository_serves_all_requests() {
    let place = Place::new().await;
    let digest = place.with_blob("team/app", 1).await;
    let image = name(&place.server.host(), "team/app:v1");
    let registry = with_login(Some(password("bob", "builder")));
    let fetches = (0..8).map(|_| registry.blob(&image, &digest, 1000, 0));
    for stream in futures::future::join_all(fetches).await {
        assert_eq!(read(stream.unwrap()).await.unwrap().len(), 1000);
    }
    let scopes = vec!["repository:team/app:pull".to_owned()];
    assert_eq!(place.issuer.asked(), [Asked { method: "GET", user: Some("bob".to_owned()), scopes }]);

    let (other, bytes) = random_bytes(9, 100);
    let error = registry.push_blob(&image, &other, 100, &bytes, &PushOptions::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "bob may not push: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_login_reads_what_is_public() {
    let place = Place::new().await;
    let public = place.with_blob("public/app", 1).await;
    let private = place.with_blob("team/app", 2).await;
    let registry = with_login(None);
    let host = place.server.host();
    assert!(registry.blob_exists(&name(&host, "public/app"), &public).await.unwrap());
    let error = registry.blob_exists(&name(&host, "team/app"), &private).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gives_a_token_to_keep_and_a_wrong_one_is_no_reason_to_go_on_without() {
    let place = Place::new().await;
    let digest = place.with_blob("public/app", 1).await;
    let host = place.server.host();
    let image = name(&host, "public/app");
    let wrong = password("alice", "hunter2");
    let error = with_login(None).login(&host, &wrong).await.unwrap_err();
    assert!(matches!(error, RegistryError::LoginRefused { .. }), "{error}");
    let error = with_login(Some(wrong)).blob_exists(&image, &digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::LoginRefused { .. }), "{error}");
    assert_eq!(place.issuer.asked(), [], "nothing was asked for without a login");

    let outcome = with_login(None).login(&host, &password("alice", "wonderland")).await.unwrap();
    let Credential::IdentityToken(token) = &outcome.credential else { panic!("{:?}", outcome.credential) };
    assert_eq!(token.expose_secret(), IDENTITY_TOKEN);
    let registry = with_login(Some(outcome.credential));
    assert!(registry.blob_exists(&image, &digest).await.unwrap());
    let last = place.issuer.asked().pop().unwrap();
    assert_eq!((last.method, last.scopes), ("POST", vec!["repository:public/app:pull".to_owned()]));

    let revoked = with_login(Some(Credential::IdentityToken("revoked".to_owned().into())));
    let error = revoked.blob_exists(&image, &digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::LoginRefused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_over_is_renewed() {
    let place = Place::new().await;
    let digest = place.with_blob("team/app", 1).await;
    let image = name(&place.server.host(), "team/app");
    let registry = with_login(Some(password("bob", "builder")));

    // By its own word it holds; the registry thinks otherwise. One that is refused is changed once.
    *place.issuer.stale.lock().unwrap() = 1;
    registry.blob_exists(&image, &digest).await.unwrap_err();
    assert_eq!(place.issuer.asked().len(), 1);
    assert!(registry.blob_exists(&image, &digest).await.unwrap());
    assert_eq!(place.issuer.asked().len(), 2);

    // By its own word it is over: it is changed before it is used.
    *place.issuer.expires_in.lock().unwrap() = 1;
    let registry = with_login(Some(password("bob", "builder")));
    assert!(registry.blob_exists(&image, &digest).await.unwrap());
    assert!(registry.blob_exists(&image, &digest).await.unwrap());
    assert_eq!(place.issuer.asked().len(), 4);
    let fetched = registry.blob(&image, &digest, 1000, 0).await.unwrap();
    assert_eq!(read(fetched).await.unwrap().len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_mounts_ask_for_what_they_need() {
    let place = Place::new().await;
    let digest = place.with_blob("base/ubuntu", 1).await;
    let (_, bytes) = random_bytes(1, 1000);
    let registry = with_login(Some(password("alice", "wonderland")));
    let image = name(&place.server.host(), "team/app");
    let mount = PushOptions { mount_from: Some("base/ubuntu".to_owned()), ..PushOptions::default() };
    let outcome = registry.push_blob(&image, &digest, 1000, &bytes, &mount).await.unwrap();
    assert_eq!(outcome, PushOutcome::Mounted { from: "base/ubuntu".to_owned() });
    let push = "repository:team/app:pull,push".to_owned();
    let scopes: Vec<_> = place.issuer.asked().into_iter().map(|asked| asked.scopes).collect();
    assert_eq!(scopes, [vec![push.clone()], vec!["repository:base/ubuntu:pull".to_owned(), push]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_the_middle_of_an_upload_costs_no_byte_twice() {
    let place = Place::new().await;
    let registry = with_login(Some(password("alice", "wonderland")));
    // Every token is over as soon as it is there: each of the requests gets its own.
    *place.issuer.expires_in.lock().unwrap() = 1;
    let image = name(&place.server.host(), "team/app");
    let (digest, bytes) = random_bytes(3, 12 << 20);
    let folder = Scratch::new("blob").unwrap();
    let file = BlobFile(folder.write("blob", &bytes).unwrap());
    let options = PushOptions { chunk_size: 5 << 20, ..PushOptions::default() };
    let size = bytes.len() as u64;
    assert_eq!(
        registry.push_blob(&image, &digest, size, &file, &options).await.unwrap(),
        PushOutcome::Uploaded
    );
    assert!(read(registry.blob(&image, &digest, size, 0).await.unwrap()).await.unwrap() == bytes);
    // HEAD, POST, three times PATCH, PUT, GET.
    assert_eq!(place.issuer.asked().len(), 7);
}
