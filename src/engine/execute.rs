//! One request's work, on its own thread: a session, the checks, the statement, the response.

use super::body::Body;
use super::boot::Engine;
use super::chunked::Joiner;
use super::error::{EngineError, code};
use super::ffi::Connection;
use super::form;
use super::reply::{Gone, Reply};
use super::request::Request;
use super::statement::{self, Insert, Refusal, Statement};
use super::users::{Access, Identity};

/// How much of a body is read to find out what it is.
const PEEK_BYTES: usize = 1 << 20;
/// How much data is handed to a running insert at once.
const PIECE_BYTES: usize = 1 << 18;

/// Why a request ended early.
enum Stop {
    Error(EngineError),
    Gone,
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Error(error)
    }
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Serves one request to its end. The session is dropped with it, so nothing reaches the next request. `place` among the
/// running statements is given back before the client hears of the end: its next request finds it free.
pub fn serve<P>(
    engine: &Engine,
    mut request: Request,
    identity: &Identity,
    body: Result<Body, EngineError>,
    mut reply: Reply,
    place: P,
) {
    let served = body.map_err(Stop::Error).and_then(|body| run(engine, &mut request, identity, body, &mut reply));
    drop(place);
    match served {
        Ok(()) => drop(reply.finish()),
        Err(Stop::Error(error)) => reply.fail(&error),
        Err(Stop::Gone) => {}
    }
}

fn run(
    engine: &Engine,
    request: &mut Request,
    identity: &Identity,
    mut body: Body,
    reply: &mut Reply,
) -> Result<(), Stop> {
    if let Some(boundary) = request.form_boundary.take() {
        let mut form = Vec::new();
        body.read_all(&mut form)?;
        for (name, value) in form::fields(&form, &boundary)? {
            request.take(&name, value)?;
        }
    }
    let request = &*request;
    let (text, statement, ended) = read_statement(request, &mut body)?;
    let mut session = open_session(engine, request, identity.access)?;
    match statement {
        Statement::Insert(insert) => {
            let data = Data { head: &text[insert.data_at..], body: (!ended).then_some(body) };
            run_insert(engine, request, identity.access, &mut session, &insert, data, reply)
        }
        Statement::Other { format, is_select } => {
            let sql = std::str::from_utf8(&text).map_err(|_| refusal(Refusal::NotUtf8))?;
            request.check_session(sql)?;
            engine.guard.check(&mut session, identity.access, sql, &request.params)?;
            let format = format.or_else(|| request.default_format.clone()).unwrap_or_else(|| "TabSeparated".to_owned());
            reply.set_format(&format);
            run_statement(request, &mut session, sql, &format, is_select, reply)
        }
    }
}

/// Joins the `query` parameter and as much of the body as belongs to the statement. Tells also whether the body has
/// been read to its end.
fn read_statement(request: &Request, body: &mut Body) -> Result<(Vec<u8>, Statement, bool), EngineError> {
    let mut text = request.query.as_bytes().to_vec();
    if !text.is_empty() {
        text.push(b'\n');
        if let Ok(insert @ Statement::Insert(_)) = statement::parse(&text) {
            return Ok((text, insert, false));
        }
    }
    let mut ended = body.read_some(&mut text, PEEK_BYTES)?;
    if !ended {
        if let Ok(insert @ Statement::Insert(_)) = statement::parse(&text) {
            return Ok((text, insert, false));
        }
        body.read_all(&mut text)?;
        ended = true;
    }
    let statement = statement::parse(&text).map_err(refusal)?;
    Ok((text, statement, ended))
}

fn refusal(refusal: Refusal) -> EngineError {
    match refusal {
        Refusal::Empty => EngineError::new(code::SYNTAX_ERROR, "Syntax error: the query is empty"),
        Refusal::NotUtf8 => EngineError::new(code::SYNTAX_ERROR, "Syntax error: the query is not UTF-8"),
        Refusal::IntoOutfile => EngineError::new(code::INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed"),
        Refusal::FromInfile => EngineError::new(
            code::UNKNOWN_TYPE_OF_QUERY,
            "Query has infile and was send directly to server: FROM INFILE is for clickhouse-client; send the file as the body",
        ),
    }
}

fn open_session(engine: &Engine, request: &Request, access: Access) -> Result<Connection, EngineError> {
    let mut session = engine.session(access, request.readonly)?;
    if let Some(database) = &request.database {
        let quoted = database.replace('\\', "\\\\").replace('`', "\\`");
        session.query(format!("USE `{quoted}`").as_bytes(), "Null", &[])?;
    }
    if let Some(set) = request.set_statement() {
        session.query(set.as_bytes(), "Null", &[])?;
    }
    Ok(session)
}

fn run_statement(
    request: &Request,
    session: &mut Connection,
    sql: &str,
    format: &str,
    is_select: bool,
    reply: &mut Reply,
) -> Result<(), Stop> {
    // This setting makes one document of rows that otherwise stand alone.
    let one_document = sql.contains("output_format_json_array_of_rows")
        || request.settings.iter().any(|(name, _)| name == "output_format_json_array_of_rows");
    if is_select
        && !one_document
        && let Some(mut joiner) = Joiner::new(format)
    {
        match session.stream(sql.as_bytes(), format, &request.params) {
            Ok(mut stream) => {
                while let Some(chunk) = stream.next_chunk()? {
                    reply.add_statistics(chunk.statistics());
                    reply.write(joiner.join(chunk.bytes()))?;
                }
                return Ok(());
            }
            // `WITH … INSERT` and the like: refused before it ran.
            Err(error) if error.message.contains("Streaming query is not supported") => {}
            Err(error) => return Err(error.into()),
        }
    }
    let result = session.query(sql.as_bytes(), format, &request.params)?;
    reply.add_statistics(result.statistics());
    Ok(reply.write(result.bytes())?)
}

/// The data of an insert: what stood behind the statement, then the rest of the body.
struct Data<'t> {
    head: &'t [u8],
    body: Option<Body>,
}

fn run_insert(
    engine: &Engine,
    request: &Request,
    access: Access,
    session: &mut Connection,
    insert: &Insert,
    data: Data<'_>,
    reply: &mut Reply,
) -> Result<(), Stop> {
    let whole = format!("{} FORMAT {}", insert.statement, insert.format);
    engine.guard.check(session, access, &whole, &request.params)?;
    reply.set_format("TabSeparated");
    let Data { mut head, mut body } = data;
    let mut held = Vec::new();
    if insert.format.eq_ignore_ascii_case("values") {
        // VALUES may hold expressions, so it is looked at before any of it reaches the engine.
        held.extend_from_slice(head);
        if let Some(mut body) = body.take() {
            body.read_all(&mut held)?;
        }
        engine.guard.check_calls(&String::from_utf8_lossy(&held))?;
        head = &held;
    }
    let mut stream = session.insert(insert.statement.as_bytes(), &insert.format, &request.params)?;
    let mut alive = head.chunks(PIECE_BYTES).all(|piece| stream.append(piece));
    if let Some(mut body) = body {
        let mut piece = vec![0; PIECE_BYTES];
        while alive {
            match body.read(&mut piece)? {
                0 => break,
                n => alive = stream.append(&piece[..n]),
            }
        }
    }
    reply.add_statistics(stream.finish()?);
    Ok(())
}
