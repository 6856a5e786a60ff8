//! The style sheet, the script and the icon, which are part of the program.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "src/console/assets"]
struct Files;

/// The address of an asset; changes with its content, so that browsers may keep it for ever.
pub fn url(name: &str) -> String {
    let hash = Files::get(name).map_or([0; 32], |file| file.metadata.sha256_hash());
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("/assets/{name}?v={short}")
}

/// Answers an asset by its name; only names that were built in are known, so that no path leads elsewhere.
pub async fn serve(name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    let Some(file) = Files::get(&name) else { return HttpResponse::NotFound().body("there is no such asset\n") };
    let kind = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let keep = if request.query_string().is_empty() { "no-cache" } else { "public, max-age=31536000, immutable" };
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, keep))
        .body(actix_web::web::Bytes::from(file.data.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A browser must find everything here: no address of another host, nothing that the policy refuses.
    #[test]
    fn assets_ask_nobody_else() {
        for name in Files::iter() {
            let file = Files::get(&name).unwrap();
            let text = String::from_utf8_lossy(&file.data).replace("http://www.w3.org/2000/svg", "");
            for bad in ["http://", "https://", "//cdn", "@import", "eval(", "innerHTML"] {
                assert!(!text.contains(bad), "{name} holds {bad}");
            }
        }
    }
}
