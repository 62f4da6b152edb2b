//! HTTP answers that refuse, kept as a type.
//!
//! The store crate renders a refusal as text and keeps status, code and headers to itself. A connector that stands
//! between it and its HTTP client turns every answer that is no success into an error that carries a [`Refusal`], which
//! comes out again at the end of the chain of sources. What is lost is that crate's own mapping of statuses to errors:
//! `classify` does that here.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};

/// Bytes read of the body of a refusal. 16 KiB: S3's are below 2 KiB, proxies send longer pages of no use.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// Bytes kept of any text that a refusal holds; it ends up on one line of a terminal.
const REFUSAL_TEXT_MAX: usize = 400;

/// An HTTP answer other than success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `Code` of the XML body, such as `AccessDenied`.
    pub code: Option<String>,
    /// `Message` of the XML body.
    pub message: Option<String>,
    /// The bucket's region, where the store names it.
    pub region: Option<String>,
    /// The store's name for the request, for its support.
    pub request_id: Option<String>,
    /// Time for which the store wants no further request.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the store answered {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {}", message.trim_end_matches('.'))?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Makes HTTP clients whose refusals are errors.
#[derive(Debug, Default)]
pub(super) struct RefusalConnector;

impl HttpConnector for RefusalConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(RefusalService { client }))
    }
}

#[derive(Debug)]
struct RefusalService {
    client: HttpClient,
}

#[async_trait]
impl HttpService for RefusalService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = read_refusal(response).await;
        // Of all kinds this is one that the store crate never repeats by itself: repeating is done here.
        Err(HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}

async fn read_refusal(response: HttpResponse) -> Refusal {
    let header = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(short(value))
    };
    let mut refusal = Refusal {
        status: response.status().as_u16(),
        region: header("x-amz-bucket-region"),
        request_id: header("x-amz-request-id").or_else(|| header("x-ms-request-id")),
        // Azure names the code in a header, which serves for answers without a body too.
        code: header("x-ms-error-code"),
        message: None,
        retry_after: header("retry-after").as_deref().and_then(seconds),
    };
    let mut body = Vec::new();
    let mut parts = response.into_body().bytes_stream();
    // A body that breaks off loses the details, not the status.
    while let Some(Ok(part)) = parts.next().await {
        let room = REFUSAL_BYTES_MAX - body.len();
        body.extend_from_slice(&part[..part.len().min(room)]);
        if body.len() == REFUSAL_BYTES_MAX {
            break;
        }
    }
    let body = String::from_utf8_lossy(&body);
    refusal.code = element(&body, "Code").or(refusal.code);
    refusal.message = element(&body, "Message");
    refusal.region = element(&body, "Region").or(refusal.region);
    refusal
}

/// Content of the first element `name` of an XML text, with the five entities resolved.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    let text = content
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    (!text.trim().is_empty()).then(|| short(text.trim()))
}

/// The time that `Retry-After` names in seconds. A date, which no store was seen to send, is passed over.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// One line of bounded length: what a store sends must not play with the operator's terminal.
pub(super) fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REFUSAL_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn code_and_message_of_an_answer_are_read() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>a &lt;b&gt; &amp;amp; c.</Message></Error>";
        assert_eq!(element(xml, "Code").as_deref(), Some("AccessDenied"));
        assert_eq!(element(xml, "Message").as_deref(), Some("a <b> &amp; c."));
        assert_eq!(element(xml, "Region"), None);
    }

    proptest! {
        #[test]
        fn no_answer_puts_control_characters_on_the_terminal(text in ".{0,600}") {
            let xml = format!("<Message>{text}</Message>");
            if let Some(message) = element(&xml, "Message") {
                prop_assert!(!message.chars().any(char::is_control));
                prop_assert!(message.chars().count() <= REFUSAL_TEXT_MAX);
            }
        }
    }
}
