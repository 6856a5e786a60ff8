//! The daemon of this configuration, asked through its API: what a command does then is checked, shown and noted as what
//! is done in the console.

mod pinned;

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

use crate::config::{Config, Server};
use crate::console::UID_HEADER;
use crate::console::access::Local;

/// Where somebody puts a token of their own, from the console's page Users.
const TOKEN: &str = "BOATHOUSE_TOKEN";
/// Longest wait for a connection, and for the answer to whether it is a console.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for an answer: a stream that is to stand still takes up to a minute.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the daemon is to be asked.
#[derive(Debug, Default, Clone, Copy, clap::Args)]
pub(super) struct Way {
    /// Work on the history, the tables and the files themselves, although a daemon runs. Without it a daemon that
    /// answers at console.listen is asked, with the token in BOATHOUSE_TOKEN, or the one that it keeps in data_dir for
    /// its own user.
    #[arg(long, global = true)]
    direct: bool,
}

/// A daemon that answers.
pub(super) struct Remote {
    client: reqwest::Client,
    base: Url,
    token: String,
    /// Where the token is from, for errors.
    from: String,
}

impl Remote {
    /// The daemon that answers at `console.listen`. None where none does, which is said on standard error, where there
    /// is no console, and where the caller asks for it.
    pub async fn find(config: &Config, way: Way) -> anyhow::Result<Option<Self>> {
        let server = &config.server;
        if way.direct || server.console.listen.is_empty() {
            return Ok(None);
        }
        let address = here(&server.console.listen);
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(&address)).await;
        if !matches!(connected, Ok(Ok(_))) {
            eprintln!("no daemon answers at {address} (console.listen): working directly");
            return Ok(None);
        }
        let (client, base) = client(server, &address)?;
        let health = client.get(base.join("healthz")?).timeout(CONNECT).send().await;
        let health = health.with_context(|| {
            format!("what listens at {address} (console.listen) does not answer; --direct works without it")
        })?;
        if !health.status().is_success() || health.text().await.ok().as_deref() != Some("ok\n") {
            eprintln!("what answers at {address} (console.listen) is no Boathouse: working directly");
            return Ok(None);
        }
        let (token, from) = token(server, &address)?;
        Ok(Some(Self { client, base, token, from }))
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<T> {
        let request = self.request(Method::GET, path)?.query(query);
        self.answer(request).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> anyhow::Result<T> {
        let request = self.request(Method::POST, path)?.json(body);
        self.answer(request).await
    }

    /// A request below `/api/v1`; what is in the path cannot lead out of it.
    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<reqwest::RequestBuilder> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.clear().extend(["api", "v1"]).extend(path);
            }
            Err(()) => bail!("console.listen makes no address: {}", self.base),
        };
        // SAFETY: getuid takes nothing and cannot fail.
        let uid = unsafe { libc::getuid() };
        Ok(self.client.request(method, url).bearer_auth(&self.token).header(UID_HEADER, uid.to_string()))
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> anyhow::Result<T> {
        let answer = request.send().await.with_context(|| {
            format!("the daemon at {} went away; whether it was done, the console's audit log says", self.base)
        })?;
        let status = answer.status();
        let text = answer.text().await.context("the daemon's answer broke off")?;
        if status.is_success() {
            return serde_json::from_str(&text)
                .with_context(|| format!("the daemon at {} is of another version than this command", self.base));
        }
        if status == StatusCode::UNAUTHORIZED {
            bail!(
                "the daemon at {} does not take the token of {}: is it another daemon's? --direct works without it",
                self.base,
                self.from
            );
        }
        let told = serde_json::from_str::<Value>(&text).ok().and_then(|told| Some(told["error"].as_str()?.to_owned()));
        bail!("{}", told.unwrap_or_else(|| format!("the daemon at {} answered {status}", self.base)))
    }
}

/// What listens everywhere is reached here.
fn here(listen: &str) -> String {
    listen.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1)
}

fn client(server: &Server, address: &str) -> anyhow::Result<(reqwest::Client, Url)> {
    // No proxy and no detour: the token is for this one server.
    let builder =
        reqwest::Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT).timeout(LIMIT);
    let (scheme, builder) = match &server.console.tls_certificate {
        Some(certificate) => ("https", builder.tls_backend_preconfigured(pinned::client(certificate)?)),
        None => ("http", builder),
    };
    let base = format!("{scheme}://{address}/");
    Ok((builder.build()?, base.parse().with_context(|| format!("console.listen makes no address: {base}"))?))
}

/// The token to show, and where it is from.
#[allow(clippy::disallowed_methods, reason = "a secret that is no argument, which every user of the machine sees")]
fn token(server: &Server, address: &str) -> anyhow::Result<(String, String)> {
    if let Some(token) = std::env::var(TOKEN).ok().filter(|token| !token.trim().is_empty()) {
        return Ok((token.trim().to_owned(), TOKEN.to_owned()));
    }
    let file = Local::file(&server.data_dir);
    let Some(token) = Local::read(&server.data_dir) else {
        bail!(
            "a daemon answers at {address}, and {} cannot be read: run this as the daemon's user, put a token of the \
             console's page Users into {TOKEN}, or work beside the daemon with --direct",
            file.display()
        );
    };
    Ok((token, file.display().to_string()))
}
