//! The proxy's connections: take a request, ask upstream, answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::body::{self, Pieces, ProxyBody};
use super::{Answer, Exchange, Fault, Hook, Shared};

/// Accepts connections until it is aborted; they end with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&shared), tls.clone()))),
                // Out of file descriptors, or the client is gone already: others may still come.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    stream.set_nodelay(true).ok();
    let reset = Arc::new(AtomicBool::new(false));
    let socket = Socket { stream, reset: Arc::clone(&reset) };
    match tls {
        None => speak(socket, shared, reset).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(socket).await {
                speak(stream, shared, reset).await;
            }
        }
    }
}

async fn speak<S>(stream: S, shared: Arc<Shared>, reset: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (cut, cut_reset) = (Arc::clone(&shared), Arc::clone(&reset));
    let service = hyper::service::service_fn(move |request| {
        let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
        async move { handle(&shared, reset, request).await }
    });
    let served =
        hyper::server::conn::http1::Builder::new().max_buf_size(16 << 10).serve_connection(io, service);
    tokio::select! {
        // Errors are clients that go away, bodies that a rule cuts, and requests that get no answer.
        _ = served => {}
        () = cut.cut.notified() => cut_reset.store(true, Ordering::SeqCst),
    }
}

/// A connection that ends without an answer: before upstream was asked, or once it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HangUp {
    Unasked,
    Answered,
}

/// All faults of one request, sorted by when they matter.
#[derive(Default)]
struct Plan {
    answer: Option<Answer>,
    delay: Duration,
    ignore_range: bool,
    unannounced: bool,
    before: Vec<Hook>,
    after: Vec<Hook>,
    hang_up: Option<HangUp>,
    replace: Option<Bytes>,
    shorten: Option<u64>,
    append: Bytes,
    headers: Vec<(&'static str, Option<String>)>,
    pieces: Pieces,
}

impl Plan {
    fn of(faults: Vec<Fault>) -> Self {
        let mut plan = Self::default();
        for fault in faults {
            match fault {
                Fault::Answer(answer) => {
                    plan.answer.get_or_insert(answer);
                }
                Fault::Delay(delay) => plan.delay += delay,
                Fault::ResetAfter(offset) => plan.pieces.end = Some((offset, body::End::Reset)),
                Fault::TruncateAfter(offset) => plan.pieces.end = Some((offset, body::End::Close)),
                Fault::StallAfter(offset) => plan.pieces.end = Some((offset, body::End::Stall)),
                Fault::FlipByte(offset) => plan.pieces.flips.push(offset),
                Fault::Shorten(length) => plan.shorten = Some(length),
                Fault::Append(bytes) => plan.append = bytes,
                Fault::ReplaceBody(bytes) => plan.replace = Some(bytes),
                Fault::Header(name, value) => plan.headers.push((name, Some(value))),
                Fault::WithoutHeader(name) => plan.headers.push((name, None)),
                Fault::Rate(rate) => plan.pieces.rate = Some(rate),
                Fault::IgnoreRange => plan.ignore_range = true,
                Fault::Unannounced => plan.unannounced = true,
                Fault::Call(hook) => plan.before.push(hook),
                Fault::CallAfter(hook) => plan.after.push(hook),
                Fault::HangUp => plan.hang_up = Some(HangUp::Unasked),
                Fault::HangUpAfter => plan.hang_up = Some(HangUp::Answered),
            }
        }
        plan
    }
}

async fn handle(
    shared: &Arc<Shared>,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> io::Result<Response<ProxyBody>> {
    let (parts, incoming) = request.into_parts();
    let mut plan = Plan::of(shared.faults(&parts));
    let text =
        |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let number = shared.record(Exchange {
        method: parts.method.to_string(),
        path: path_of(&parts).to_owned(),
        range: text(header::RANGE),
        authorized: parts.headers.contains_key(header::AUTHORIZATION),
        status: 0,
        bytes: 0,
    });
    tokio::time::sleep(plan.delay).await;
    plan.before.iter().for_each(Hook::call);
    let no_answer = || io::Error::from(io::ErrorKind::ConnectionAborted);
    if plan.hang_up == Some(HangUp::Unasked) {
        return Err(no_answer());
    }
    let (status, mut headers, content) = match plan.answer.take() {
        Some(answer) => local(&answer),
        None => upstream(shared, &parts, incoming, plan.ignore_range).await?,
    };
    plan.after.iter().for_each(Hook::call);
    if plan.hang_up == Some(HangUp::Answered) {
        shared.update(number, |exchange| exchange.status = status.as_u16());
        return Err(no_answer());
    }
    for (name, value) in std::mem::take(&mut plan.headers) {
        match value.map(HeaderValue::try_from) {
            Some(Ok(value)) => drop(headers.insert(name, value)),
            _ => drop(headers.remove(name)),
        }
    }
    shared.update(number, |exchange| exchange.status = status.as_u16());
    let content = if parts.method == Method::HEAD { content } else { reshape(&plan, &mut headers, content) };
    let body = body::send(Arc::clone(shared), number, reset, plan.pieces, content);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

type Content = futures::stream::BoxStream<'static, io::Result<Bytes>>;

fn whole(bytes: Bytes) -> Content {
    futures::stream::iter([Ok(bytes)]).boxed()
}

/// Applies the faults that change the body's length.
fn reshape(plan: &Plan, headers: &mut HeaderMap, mut content: Content) -> Content {
    let mut length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = &plan.replace {
        length = Some(bytes.len() as u64);
        content = whole(bytes.clone());
    }
    if let Some(limit) = plan.shorten {
        length = length.map(|length| length.min(limit));
        content = body::first(content, limit);
    }
    if !plan.append.is_empty() {
        length = length.map(|length| length + plan.append.len() as u64);
        content = content.chain(whole(plan.append.clone())).boxed();
    }
    match length {
        Some(length) if !plan.unannounced => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        _ => drop(headers.remove(header::CONTENT_LENGTH)),
    }
    content
}

fn local(answer: &Answer) -> (StatusCode, HeaderMap, Content) {
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers.insert(header::CONTENT_LENGTH, answer.body.len().into());
    (
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY),
        headers,
        whole(answer.body.clone()),
    )
}

async fn upstream(
    shared: &Shared,
    parts: &Parts,
    incoming: Incoming,
    ignore_range: bool,
) -> io::Result<(StatusCode, HeaderMap, Content)> {
    let mut headers = end_to_end(&parts.headers);
    if ignore_range {
        headers.remove(header::RANGE);
    }
    // `Host` goes on as it came, so that the URLs in the registry's answers lead back here.
    let mut request = shared
        .client
        .request(parts.method.clone(), format!("{}{}", shared.upstream, path_of(parts)))
        .headers(headers);
    if parts.method != Method::GET && parts.method != Method::HEAD {
        request = request.body(reqwest::Body::wrap_stream(incoming.into_data_stream()));
    }
    match request.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), end_to_end(answer.headers()));
            Ok((status, headers, answer.bytes_stream().map_err(io::Error::other).boxed()))
        }
        Err(error) if shared.is_gateway => {
            Ok(local(&Answer::status(502).body(format!("the proxy's upstream failed: {error}"))))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

fn path_of(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Headers without those that concern one connection alone (RFC 9110, 7.6.1).
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER]
    {
        headers.remove(name);
    }
    headers
}

/// A connection that is reset, not closed, once `reset` is set.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            self.stream.set_zero_linger().ok();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
