//! What all pages have in common: the frame, the navigation, small parts.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;

use actix_web::dev::Payload;
use actix_web::http::header::{self, ContentType, HeaderMap};
use actix_web::web::Bytes;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, HttpResponse};
use futures::{FutureExt, StreamExt, stream};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::access::{Caller, Role};
use super::assets;
use super::problem::Problem;

/// The cookie that keeps the theme.
pub const THEME: &str = "boathouse_theme";

/// The field in which a form brings along the query of the page that it is on.
pub const SHOWN: &str = "view";
/// Fields of a query that tell what was just done: the next action tells another thing.
const TOLD: [&str; 2] = ["said", "did"];
/// A longer query is none of ours.
const SHOWN_BYTES_MAX: usize = 2_000;

/// A cookie's value.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// Light, dark, or as the system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    System,
    Light,
    Dark,
}

impl Theme {
    pub fn of(headers: &HeaderMap) -> Self {
        Self::named(&cookie(headers, THEME).unwrap_or_default())
    }

    /// What is no name of a theme is as the system is.
    pub fn named(name: &str) -> Self {
        match name {
            "light" => Theme::Light,
            "dark" => Theme::Dark,
            _ => Theme::System,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Theme::System => "system",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Theme::System => "◐",
            Theme::Light => "☀",
            Theme::Dark => "☾",
        }
    }

    fn next(self) -> Self {
        match self {
            Theme::System => Theme::Light,
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::System,
        }
    }
}

/// Who looks, at which page, in which theme.
#[derive(Debug, Clone)]
pub struct View {
    pub caller: Caller,
    theme: Theme,
    /// Path and query, to come back to.
    here: String,
    path: String,
    /// Seconds after which a browser without a script asks for the page again.
    again: Option<u32>,
}

impl FromRequest for View {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            // The gate lets nobody through without one.
            return ready(Err(Problem::new(actix_web::http::StatusCode::UNAUTHORIZED, "sign in first").into()));
        };
        ready(Ok(Self {
            caller,
            theme: Theme::of(request.headers()),
            here: request.uri().path_and_query().map_or("/", |here| here.as_str()).to_owned(),
            path: request.path().to_owned(),
            again: None,
        }))
    }
}

/// Where a page is sent in two pieces; nothing that is shown can hold it unescaped.
const SEAM: &str = "<!-- the rest -->";

/// The pages in the navigation.
const PAGES: [(&str, &str, Role); 13] = [
    ("/", "Overview", Role::Viewer),
    ("/stream", "Stream", Role::Viewer),
    ("/batch", "Batch", Role::Viewer),
    ("/data", "Data", Role::Viewer),
    ("/sql", "SQL", Role::Viewer),
    ("/quality", "Quality", Role::Viewer),
    ("/reconcile", "Reconcile", Role::Viewer),
    ("/dead-letters", "Dead letters", Role::Viewer),
    ("/actors", "Actors", Role::Viewer),
    ("/api", "API", Role::Viewer),
    ("/configuration", "Configuration", Role::Admin),
    ("/users", "Users", Role::Admin),
    ("/audit", "Audit", Role::Admin),
];

/// The page in the navigation whose path is this below `/`.
pub fn page_below(name: &str) -> Option<&'static str> {
    PAGES.iter().map(|(path, ..)| *path).find(|path| !name.is_empty() && path.strip_prefix('/') == Some(name))
}

impl View {
    /// A whole page. `live` is the path that its parts are sent on while they change.
    pub fn page(&self, title: &str, live: Option<&str>, body: Markup) -> HttpResponse {
        HttpResponse::Ok().content_type(ContentType::html()).body(self.whole(title, live, body).into_string())
    }

    /// A page whose beginning is sent at once, and what takes a while to find out when it is known. What goes wrong then is
    /// told in its place: the answer has begun.
    pub fn page_in_two(
        &self,
        title: &str,
        live: Option<&str>,
        first: Markup,
        rest: impl Future<Output = Result<Markup, Problem>> + 'static,
    ) -> HttpResponse {
        let whole = self.whole(title, live, html! { (first) (PreEscaped(SEAM)) }).into_string();
        let (begin, end) = whole.rsplit_once(SEAM).unwrap_or((&whole, ""));
        let (begin, end) = (Bytes::from(begin.to_owned()), end.to_owned());
        let here = self.here.clone();
        let rest = async move {
            // A page that ends in its middle would show nothing of what went wrong.
            let rest = AssertUnwindSafe(rest).catch_unwind().await.unwrap_or_else(|_| Err(Problem::broken()));
            let rest = rest.unwrap_or_else(|problem| failed(&problem.text, &here));
            Ok::<_, Infallible>(Bytes::from(rest.into_string() + &end))
        };
        let pieces = stream::once(ready(Ok(begin))).chain(stream::once(rest));
        HttpResponse::Ok().content_type(ContentType::html()).streaming(pieces)
    }

    fn whole(&self, title: &str, live: Option<&str>, body: Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" data-theme=(self.theme.as_str()) {
                (head(title, self.again))
                body data-live=[live] data-csrf=(self.caller.csrf()) {
                    a.skip href="#main" { "Skip to the content" }
                    (self.bar(live.is_some()))
                    main #main tabindex="-1" { (body) }
                }
            }
        }
    }

    fn bar(&self, live: bool) -> Markup {
        let here = |path: &str| if path == "/" { self.path == "/" } else { self.path.starts_with(path) };
        html! {
            header.bar {
                a.brand href="/" { (mark()) span { "Boathouse" } }
                nav aria-label="Pages" {
                    ul {
                        @for (path, name, role) in PAGES {
                            @if self.caller.may(role) {
                                li { a href=(path) aria-current=[here(path).then_some("page")] { (name) } }
                            }
                        }
                    }
                }
                form.search action="/search" method="get" role="search" {
                    label.sr for="q" { "Go to" }
                    input #q name="q" type="search" placeholder="Event, offset, run …" autocomplete="off"
                        spellcheck="false" aria-describedby="q-hint";
                    span.sr #q-hint { "Paste an event id, topic/generation/partition/offset, a run, a table or a date" }
                }
                div.tools {
                    @if live {
                        button.quiet.live-toggle type="button" hidden aria-pressed="false" { "Live" }
                    }
                    (self.form("/theme", html! {
                        input type="hidden" name="theme" value=(self.theme.next().as_str());
                        input type="hidden" name="back" value=(self.here);
                        button.quiet type="submit" title={ "Theme: " (self.theme.as_str()) ". Change it" } {
                            span aria-hidden="true" { (self.theme.sign()) } span.sr { "Theme: " (self.theme.as_str()) ". Change it" }
                        }
                    }))
                    a.quiet href="/account" { (self.caller.name) }
                }
            }
        }
    }

    /// A form that changes something: it brings the session's token along.
    pub fn form(&self, action: &str, fields: Markup) -> Markup {
        html! {
            form.act method="post" action=(action) {
                input type="hidden" name="csrf" value=(self.caller.csrf());
                (fields)
            }
        }
    }

    /// What a form brings along so that its page is shown again as it was, over the same range and with the same filter.
    pub fn shown(&self) -> Markup {
        let query = self.here.split_once('?').map_or("", |(_, query)| query);
        html! { input type="hidden" name=(SHOWN) value=(query); }
    }

    /// The page of something that goes on: who has no script for its live parts asks again by itself.
    pub fn asks_again(mut self, seconds: u32) -> Self {
        self.again = Some(seconds);
        self
    }

    /// Shown to operators alone.
    pub fn operator(&self) -> bool {
        self.caller.may(Role::Operator)
    }
}

/// What stands in the place of a part of a page that could not be made.
fn failed(why: &str, here: &str) -> Markup {
    html! {
        div.said.failed role="alert" {
            p { strong { "This part of the page could not be shown" } }
            p { (why) }
            p { a href=(here) { "Try again" } }
        }
    }
}

fn head(title: &str, again: Option<u32>) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Boathouse" }
            link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
            link rel="stylesheet" href=(assets::url("console.css"));
            script src=(assets::url("console.js")) defer {}
            @if let Some(seconds) = again { noscript { meta http-equiv="refresh" content=(seconds); } }
        }
    }
}

/// A boat on two waves.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" aria-hidden="true" focusable="false" {
            path d="M16 3v15M16 4l9 13H16" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linejoin="round" {}
            path d="M4 20h24l-4 6H8z" fill="currentColor" {}
            path d="M2 29.5c3 0 3-1.6 6-1.6s3 1.6 6 1.6 3-1.6 6-1.6 3 1.6 6 1.6 3-1.6 5-1.6" fill="none" stroke="currentColor" stroke-width="1.8" {}
        }
    }
}

/// A page for somebody who is not signed in.
pub fn bare(theme: Theme, title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(theme.as_str()) {
            (head(title, None))
            body.bare { main #main { div.brand { (mark()) span { "Boathouse" } } (body) } }
        }
    }
}

/// The page of something that did not work.
pub fn problem_page(problem: &Problem) -> Markup {
    let title = match problem.status.as_u16() {
        401 | 403 => "Not allowed",
        404 => "Not there",
        503 => "Something does not answer",
        _ => "Not done",
    };
    bare(
        Theme::System,
        title,
        html! {
            h1 { (title) }
            p.said { (problem.text) }
            p { a href="/" { "Back to the overview" } }
        },
    )
}

/// How something is: by colour, by shape and by word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Good,
    Busy,
    Watch,
    Wrong,
    Idle,
}

impl State {
    pub fn class(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Busy => "busy",
            State::Watch => "watch",
            State::Wrong => "wrong",
            State::Idle => "idle",
        }
    }

    pub fn sign(self) -> &'static str {
        match self {
            State::Good => "●",
            State::Busy => "◐",
            State::Watch => "▲",
            State::Wrong => "■",
            State::Idle => "○",
        }
    }
}

/// A state with its word.
pub fn badge(state: State, word: &str) -> Markup {
    html! { span class={ "badge " (state.class()) } { span.sign aria-hidden="true" { (state.sign()) } (word) } }
}

/// A part of a page that is sent again while it changes.
pub fn part(id: &str, content: &Markup) -> Markup {
    html! { div.part id=(id) data-part { (content) } }
}

/// What to show where there is nothing yet: why, and what to do.
pub fn empty(what: &str, todo: Markup) -> Markup {
    html! { div.empty { p.what { (what) } p { (todo) } } }
}

/// The head of a column of words.
pub fn th(name: &str) -> Markup {
    html! { th scope="col" { (name) } }
}

/// The head of a column of numbers.
pub fn n(name: &str) -> Markup {
    html! { th.n scope="col" { (name) } }
}

/// A table under its columns' heads, which scrolls by itself where the window is narrow.
pub fn table(label: &str, columns: &[Markup], rows: Markup) -> Markup {
    table_of(None, label, columns, rows)
}

/// A table whose cells are signs.
pub fn grid(label: &str, columns: &[Markup], rows: Markup) -> Markup {
    table_of(Some("grid"), label, columns, rows)
}

fn table_of(class: Option<&str>, label: &str, columns: &[Markup], rows: Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table class=[class] {
                thead { tr { @for column in columns { (column) } } }
                tbody { (rows) }
            }
        }
    }
}

/// One figure with its name.
pub fn figure(name: &str, value: &str, unit: &str, note: Option<&str>) -> Markup {
    html! {
        div.figure {
            dt { (name) }
            dd { span.value { (value) } @if !unit.is_empty() { span.unit { " " (unit) } }
                @if let Some(note) = note { span.note { (note) } } }
        }
    }
}

/// A text as it stands in an address.
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Segments as they stand in a path.
pub fn in_path(text: &str) -> String {
    text.split('/').map(|segment| encoded(segment).replace('+', "%20")).collect::<Vec<_>>().join("/")
}

/// Sends the browser elsewhere after a change.
pub fn go(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish()
}

/// A path of this server, from what somebody sent; anything else is the overview.
pub fn own_path(sent: &str) -> &str {
    let inside = sent.starts_with('/') && !sent.starts_with("//") && !sent.starts_with("/\\");
    if inside && !sent.chars().any(char::is_control) { sent } else { "/" }
}

/// A path with a query, where there is any.
pub fn below<'a>(path: &str, query: impl Iterator<Item = (&'a str, impl AsRef<str>)>) -> String {
    let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A page as it was shown, which a form has sent in the field [`SHOWN`], and what it is to tell. Whatever was sent, this
/// leads to that page: fields are read and written anew.
pub fn again(page: &str, sent: &str, told: &[(&str, &str)]) -> String {
    let sent = if sent.len() <= SHOWN_BYTES_MAX { sent } else { "" };
    let kept = url::form_urlencoded::parse(sent.as_bytes()).filter(|(name, _)| !TOLD.contains(&&**name));
    let told = told.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let all: Vec<(Cow<str>, Cow<str>)> = kept.chain(told).collect();
    below(page, all.iter().map(|(name, value)| (&**name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_server() {
        assert_eq!(own_path("/batch?x=1"), "/batch?x=1");
        for bad in ["", "http://evil", "//evil", "/\\evil", "javascript:alert(1)", "/a\r\nset-cookie: x"] {
            assert_eq!(own_path(bad), "/", "{bad}");
        }
    }

    #[test]
    fn a_page_is_shown_again_as_it_was_and_no_other() {
        let told = [("said", "paused")];
        assert_eq!(again("/batch", "", &[]), "/batch");
        assert_eq!(again("/batch", "", &told), "/batch?said=paused");
        assert_eq!(
            again("/batch", "state=failed&from=2026-02-01&said=resumed&did=x", &told),
            "/batch?state=failed&from=2026-02-01&said=paused"
        );
        assert_eq!(again("/stream", "range=24h", &told), "/stream?range=24h&said=paused");
        let long = format!("state={}", "x".repeat(SHOWN_BYTES_MAX));
        assert_eq!(again("/batch", &long, &told), "/batch?said=paused");
        for bad in [
            "//evil",
            "https://evil/?x=1",
            "/../..//evil",
            "@evil",
            "#//evil",
            "a\r\nset-cookie: b=c",
            "%0d%0ax",
            "ß=&&=;",
        ] {
            let to = again("/batch", bad, &told);
            assert!(to.starts_with("/batch?") && to.ends_with("&said=paused"), "{bad}: {to}");
            assert!(to.bytes().all(|byte| byte.is_ascii_graphic()) && !to[6..].contains('#'), "{bad}: {to}");
        }
    }

    /// The whole of a page whose second piece ends so.
    async fn in_two(rest: impl Future<Output = Result<Markup, Problem>> + 'static) -> String {
        let via = super::super::access::Via::Token;
        let caller = Caller { name: "ada".into(), role: Role::Viewer, via };
        let (path, here) = ("/dead-letters".to_owned(), "/dead-letters?status=future&state=open".to_owned());
        let view = View { caller, theme: Theme::System, here, path, again: None };
        let answer = view.page_in_two("Letters", None, html! { h1 { "Letters" } }, rest);
        assert_eq!(answer.status(), 200);
        let body = actix_web::body::to_bytes(answer.into_body()).await.map_err(|_| "a body").unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[actix_web::test]
    async fn a_page_whose_second_piece_fails_says_so_in_its_place_and_ends_whole() {
        let good = in_two(ready(Ok(html! { p { "three letters" } }))).await;
        assert!(good.contains("three letters") && !good.contains("role=\"alert\""), "{good}");
        let away = Problem::new(actix_web::http::StatusCode::SERVICE_UNAVAILABLE, "Kafka is <away>; start it");
        let failed = in_two(ready(Err(away))).await;
        let panicked = in_two(async { panic!("a mistake of ours") }).await;
        for (page, why) in [(&failed, "Kafka is &lt;away&gt;; start it"), (&panicked, "daemon's log")] {
            for part in ["<h1>Letters</h1>", "role=\"alert\"", "could not be shown", why] {
                assert!(page.contains(part), "{part} is missing in {page}");
            }
            assert!(page.contains("href=\"/dead-letters?status=future&amp;state=open\""), "{page}");
            assert!(page.ends_with("</main></body></html>"), "{page}");
        }
        assert!(!panicked.contains("a mistake of ours"), "{panicked}");
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, header::HeaderValue::from_static("xboathouse_theme=a; boathouse_theme=dark"));
        assert_eq!(cookie(&headers, THEME).as_deref(), Some("dark"));
        assert_eq!(Theme::of(&headers), Theme::Dark);
        assert_eq!(cookie(&headers, "theme"), None);
    }
}
