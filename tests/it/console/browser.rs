//! A browser as far as the console needs one: a cookie, and the token that a change brings along.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, redirect};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::daemon::{PATIENCE, Site};

pub struct Browser {
    client: reqwest::Client,
    port: u16,
    cookie: String,
    csrf: String,
    password: String,
}

/// A header of an answer; empty where there is none.
pub fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Fields of a form, as browsers send them.
pub trait Fields {
    fn fields(self, fields: &[(&str, &str)]) -> Self;
}

impl Fields for RequestBuilder {
    fn fields(self, fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.header("content-type", "application/x-www-form-urlencoded").body(body)
    }
}

impl Site {
    /// The password that the first start made, while it waits.
    pub fn first_password(&self) -> String {
        let file = self.folder.join("data/console/first-password");
        std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
    }
}

impl Browser {
    /// Once the console answers.
    pub async fn of(site: &Site) -> Self {
        let client =
            reqwest::Client::builder().redirect(redirect::Policy::none()).no_proxy().build().expect("a client");
        let browser = Self {
            client,
            port: site.console_port,
            cookie: String::new(),
            csrf: String::new(),
            password: String::new(),
        };
        let begin = Instant::now();
        while browser.request(Method::GET, "/healthz").send().await.is_err() {
            assert!(begin.elapsed() < PATIENCE, "no console on {}\n{}", site.console_port, site.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        browser
    }

    /// Signed in as the first user, with the first password.
    pub async fn signed_in(site: &Site) -> Self {
        let mut browser = Self::of(site).await;
        let password = site.first_password();
        browser.sign_in("admin", &password).await;
        browser
    }

    /// Another browser of the same user.
    pub async fn again(site: &Site, other: &Browser) -> Self {
        let mut browser = Self::of(site).await;
        browser.sign_in("admin", &other.password).await;
        browser
    }

    pub async fn sign_in(&mut self, name: &str, password: &str) {
        let answer = self.request(Method::POST, "/login").fields(&[("name", name), ("password", password)]);
        let answer = answer.send().await.expect("an answer");
        assert_eq!(answer.status(), 303, "{name} is not let in");
        self.take_cookie(&answer);
        self.password = password.to_owned();
        let (status, session) = self.api(Method::GET, "/api/v1/session", None).await;
        assert_eq!(status, 200, "{session}");
        self.csrf = session["csrf"].as_str().expect("a token").to_owned();
    }

    pub fn take_cookie(&mut self, answer: &Response) {
        let cookie = header(answer, "set-cookie");
        self.cookie = cookie.split(';').next().expect("a cookie").to_owned();
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// A request without cookie and token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://127.0.0.1:{}{path}", self.port))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).header("cookie", &self.cookie).send().await.expect("an answer")
    }

    /// A form with the session's token.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let csrf = match self.csrf.is_empty() {
            true => {
                let answer = self.request(Method::GET, "/api/v1/session").header("cookie", &self.cookie).send().await;
                let session: Value = answer.expect("an answer").json().await.expect("a session");
                session["csrf"].as_str().expect("a token").to_owned()
            }
            false => self.csrf.clone(),
        };
        let form: Vec<(&str, &str)> = [("csrf", csrf.as_str())].into_iter().chain(fields.iter().copied()).collect();
        self.request(Method::POST, path).header("cookie", &self.cookie).fields(&form).send().await.expect("an answer")
    }

    /// A form of somebody who is not signed in.
    pub async fn post_unsigned(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.request(Method::POST, path).fields(fields).send().await.expect("an answer")
    }

    /// A call of the API; status and answer.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path).header("cookie", &self.cookie).header("x-csrf-token", &self.csrf);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    /// The status of a path that is sent exactly as it stands.
    pub async fn raw(&self, path: &str) -> u16 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {}\r\nconnection: close\r\n\r\n", self.cookie);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer).into_owned();
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{path}: {text}"))
    }
}
