//! A path to a store that goes by a policy: each request is taken apart, and passes when the policy allows all that it asks for.
//!
//! LocalStack knows no policies. Which actions a request asks for is told here as AWS's service authorization reference has it for S3, as
//! far as haulout's requests go; any other asks for an action that no policy names. That an object is missing is told to those alone who may
//! list its key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use haulout::model::{Clock, SystemClock};
use serde_json::Value;

/// Longest body that is read: a pack has 16 MiB or so.
const BODY_BYTES_MAX: usize = 256 << 20;
/// Lines of a head that are read.
const HEADERS_MAX: usize = 200;
const DAY_SECONDS: i64 = 24 * 3600;

/// A policy of `infra/iam`.
#[derive(Debug, Clone)]
pub struct Policy {
    statements: Vec<Value>,
}

/// An action on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub action: String,
    /// In a policy with `*`.
    pub resource: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.action, self.resource.trim_start_matches("arn:aws:s3:::"))
    }
}

/// A right that is asked for, and what conditions are about.
#[derive(Debug, Clone)]
struct Need {
    right: Right,
    context: BTreeMap<&'static str, String>,
}

impl Policy {
    /// The policy of a role, with these words in the place of its own.
    pub fn of(role: &str, words: &[(&str, &str)]) -> Policy {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("infra/iam/{role}.json"));
        let mut text = fs::read_to_string(path).unwrap();
        for (word, instead) in words {
            assert!(text.contains(word), "{role} has no {word}");
            text = text.replace(word, instead);
        }
        let policy: Value = serde_json::from_str(&text).unwrap();
        let statements = policy["Statement"].as_array().unwrap().clone();
        for statement in &statements {
            let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
            assert!(statement.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{statement}");
        }
        Policy { statements }
    }

    /// What it allows.
    pub fn allowed(&self) -> BTreeSet<Right> {
        let allows = self.statements.iter().filter(|one| one["Effect"] == "Allow");
        let rights = allows.flat_map(|one| {
            let right = |action, resource| Right { action, resource };
            words(&one["Action"]).into_iter().flat_map(move |action| {
                words(&one["Resource"]).into_iter().map(move |resource| right(action.clone(), resource))
            })
        });
        rights.collect()
    }

    /// The right by which it allows this; none where it does not, or denies it.
    fn allows(&self, need: &Need) -> Option<Right> {
        let found = |effect: &str| {
            self.statements.iter().filter(|one| one["Effect"] == effect).find_map(|one| applies(one, need))
        };
        if found("Deny").is_some() { None } else { found("Allow") }
    }
}

/// The part of a statement that speaks of what is asked for, if any does.
fn applies(statement: &Value, need: &Need) -> Option<Right> {
    let action = words(&statement["Action"]).into_iter().find(|one| fits(one, &need.right.action))?;
    let resource = words(&statement["Resource"]).into_iter().find(|one| fits(one, &need.right.resource))?;
    let conditions = statement["Condition"].as_object();
    let met = conditions.into_iter().flatten().all(|(operator, keys)| {
        keys.as_object().unwrap().iter().all(|(key, values)| {
            let Some(found) = need.context.get(key.as_str()) else { return false };
            words(values).iter().any(|value| match operator.as_str() {
                "StringLike" => fits(value, found),
                "StringEquals" => value == found,
                "NumericLessThanEquals" => found.parse::<i64>().unwrap() <= value.parse().unwrap(),
                other => panic!("a condition that nobody knows here: {other}"),
            })
        })
    });
    met.then_some(Right { action, resource })
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    }
}

/// Whether `*` of a pattern can be put so that it is the text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((beginning, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(beginning) else { return false };
    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| fits(rest, &text[at..]))
}

/// The path. It ends when dropped.
#[derive(Debug)]
pub struct PolicedPath {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    target: String,
    used: Mutex<BTreeSet<Right>>,
    refused: Mutex<BTreeSet<Right>>,
    /// Access keys, and the buckets that they were used for.
    keys: Mutex<BTreeSet<(String, String)>>,
    ended: AtomicBool,
}

impl PolicedPath {
    /// Opens a path to `target`, a host and port, for those who have this policy.
    pub fn to(target: &str, policy: Policy) -> PolicedPath {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            policy,
            target: target.to_owned(),
            used: Mutex::default(),
            refused: Mutex::default(),
            keys: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let path = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if path.ended.load(Ordering::SeqCst) {
                    break;
                }
                let path = Arc::clone(&path);
                // Whoever goes away in the middle has nothing more to ask.
                thread::spawn(move || drop(path.pass(client)));
            }
        });
        PolicedPath { address, shared }
    }

    /// URL of the path's near end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The rights of the policy that were of use.
    pub fn used(&self) -> BTreeSet<Right> {
        self.shared.used.lock().unwrap().clone()
    }

    /// What was asked for and not allowed; forgotten then.
    pub fn refused(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.refused.lock().unwrap()).iter().map(Right::to_string).collect()
    }

    /// Access keys, and the buckets that they were used for.
    pub fn keys(&self) -> BTreeSet<(String, String)> {
        self.shared.keys.lock().unwrap().clone()
    }
}

impl Drop for PolicedPath {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn may(&self, need: &Need) -> bool {
        let right = self.policy.allows(need);
        let may = right.is_some();
        match right {
            Some(right) => self.used.lock().unwrap().insert(right),
            None => self.refused.lock().unwrap().insert(need.right.clone()),
        };
        may
    }

    /// Passes one request on, and its answer back.
    fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut from = BufReader::new(client.try_clone()?);
        let Some(mut head) = Head::read(&mut from)? else { return Ok(()) };
        if head.header("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            head.headers.retain(|(name, _)| name != "expect");
        }
        let length = head.header("content-length").map_or(0, |text| text.parse().unwrap());
        assert!(length <= BODY_BYTES_MAX && head.header("transfer-encoding").is_none(), "{head:?}");
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let request = Request::new(&head, &body);
        self.keys.lock().unwrap().insert((request.access_key(), request.bucket.clone()));
        let needs = request.needs();
        // All, so that each is told.
        let refused = needs.iter().filter(|need| !self.may(need)).count();
        if refused > 0 {
            return deny(&mut client, &head);
        }
        let mut store = TcpStream::connect(&self.target)?;
        store.write_all(&head.closing())?;
        store.write_all(&body)?;
        let mut answers = BufReader::new(store);
        let Some(answer) = Head::read(&mut answers)? else { return Ok(()) };
        if answer.first.split(' ').nth(1) == Some("404") && !request.key.is_empty() {
            let list = request.need("s3:ListBucket", true, &[("s3:prefix", request.key.clone())]);
            if self.policy.allows(&list).is_none() {
                return deny(&mut client, &head);
            }
        }
        client.write_all(&answer.closing())?;
        std::io::copy(&mut answers, &mut client)?;
        Ok(())
    }
}

/// Answers as S3 does who may not.
fn deny(client: &mut TcpStream, head: &Head) -> std::io::Result<()> {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    let body = if head.first.starts_with("HEAD ") { "" } else { body };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// The head of a request or of an answer. Names of headers are in lower case.
#[derive(Debug)]
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads one; nothing where there is none more.
    fn read(from: &mut impl BufRead) -> std::io::Result<Option<Head>> {
        let mut lines = Vec::new();
        while lines.len() < HEADERS_MAX {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let mut lines = lines.into_iter();
        let Some(first) = lines.next() else { return Ok(None) };
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Some(Head { first, headers: headers.collect() }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Its bytes, with which the connection ends.
    fn closing(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "connection" && name != "keep-alive") {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "connection: close\r\n\r\n").into_bytes()
    }
}

/// A request to S3 that names its bucket in the path.
struct Request<'a> {
    method: &'a str,
    bucket: String,
    /// Empty when it is about the bucket.
    key: String,
    query: BTreeMap<String, String>,
    head: &'a Head,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn new(head: &'a Head, body: &'a [u8]) -> Request<'a> {
        let mut parts = head.first.split(' ');
        let (method, target) = (parts.next().unwrap(), parts.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decoded(path);
        let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = query.map(|(name, value)| (decoded(name), decoded(value))).collect();
        Request { method, bucket: bucket.to_owned(), key: key.to_owned(), query, head, body }
    }

    fn access_key(&self) -> String {
        let authorization = self.head.header("authorization").unwrap_or_default();
        let credential = authorization.split("Credential=").nth(1).unwrap_or_default();
        credential.split('/').next().unwrap_or_default().to_owned()
    }

    fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    fn need(&self, action: &str, of_bucket: bool, context: &[(&'static str, String)]) -> Need {
        let resource = if of_bucket { self.bucket.clone() } else { format!("{}/{}", self.bucket, self.key) };
        let right = Right { action: action.to_owned(), resource: format!("arn:aws:s3:::{resource}") };
        Need { right, context: context.iter().cloned().collect() }
    }

    /// All that it asks for.
    fn needs(&self) -> Vec<Need> {
        if self.key.is_empty() { vec![self.of_bucket()] } else { self.of_object() }
    }

    fn of_bucket(&self) -> Need {
        let prefix = [("s3:prefix", self.query.get("prefix").cloned().unwrap_or_default())];
        match self.method {
            "GET" if self.has("versioning") => self.need("s3:GetBucketVersioning", true, &[]),
            "GET" if self.has("object-lock") => self.need("s3:GetBucketObjectLockConfiguration", true, &[]),
            "GET" if self.has("versions") => self.need("s3:ListBucketVersions", true, &prefix),
            "GET" if self.has("list-type") => self.need("s3:ListBucket", true, &prefix),
            _ => self.unknown(),
        }
    }

    fn of_object(&self) -> Vec<Need> {
        let one = |action: &str| vec![self.need(action, false, &[])];
        let versioned = |plain: &str, version: &str| one(if self.has("versionId") { version } else { plain });
        match self.method {
            "GET" if self.has("retention") => one("s3:GetObjectRetention"),
            "GET" if self.has("legal-hold") => one("s3:GetObjectLegalHold"),
            "GET" | "HEAD" => versioned("s3:GetObject", "s3:GetObjectVersion"),
            "DELETE" if self.has("uploadId") => one("s3:AbortMultipartUpload"),
            "DELETE" => [versioned("s3:DeleteObject", "s3:DeleteObjectVersion"), self.bypass()].concat(),
            "PUT" if self.has("retention") => {
                let told = |name: &str| {
                    let text = String::from_utf8_lossy(self.body).into_owned();
                    let inner = text.split(&format!("<{name}>")).nth(1).unwrap_or_default();
                    inner.split('<').next().unwrap_or_default().to_owned()
                };
                [vec![self.lock(told("Mode"), &told("RetainUntilDate"))], self.bypass()].concat()
            }
            "PUT" if self.has("legal-hold") => one("s3:PutObjectLegalHold"),
            "PUT" if self.has("acl") => one("s3:PutObjectAcl"),
            "PUT" | "POST" if self.is_put() => {
                let mut needs = one("s3:PutObject");
                if let Some(mode) = self.head.header("x-amz-object-lock-mode") {
                    let until = self.head.header("x-amz-object-lock-retain-until-date").unwrap_or_default();
                    needs.push(self.lock(mode.to_owned(), until));
                }
                if self.head.header("x-amz-object-lock-legal-hold").is_some() {
                    needs.extend(one("s3:PutObjectLegalHold"));
                }
                needs.extend(self.head.header("x-amz-copy-source").map(source));
                needs
            }
            _ => vec![self.unknown()],
        }
    }

    /// Whether it puts an object, or a part of one.
    fn is_put(&self) -> bool {
        let known = ["x-id", "partNumber", "uploadId", "uploads"];
        let puts = if self.method == "PUT" { true } else { self.has("uploads") || self.has("uploadId") };
        puts && self.query.keys().all(|name| known.contains(&name.as_str()))
    }

    fn bypass(&self) -> Vec<Need> {
        let header = self.head.header("x-amz-bypass-governance-retention");
        let asked = header.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if asked { vec![self.need("s3:BypassGovernanceRetention", false, &[])] } else { Vec::new() }
    }

    fn lock(&self, mode: String, until: &str) -> Need {
        let until: jiff::Timestamp = until.parse().unwrap_or_else(|error| panic!("{until:?}: {error}"));
        let seconds = until.as_second() - SystemClock.now().0.as_second();
        // A day that has begun counts.
        let days = (seconds + DAY_SECONDS - 1).div_euclid(DAY_SECONDS);
        let context = [("s3:object-lock-mode", mode), ("s3:object-lock-remaining-retention-days", days.to_string())];
        self.need("s3:PutObjectRetention", false, &context)
    }

    fn unknown(&self) -> Need {
        let names: Vec<&str> = self.query.keys().map(String::as_str).collect();
        self.need(&format!("unknown:{} {}", self.method, names.join("&")), self.key.is_empty(), &[])
    }
}

/// What a copy within the store asks of its source.
fn source(header: &str) -> Need {
    let (path, version) = header.split_once("?versionId=").map_or((header, None), |(path, id)| (path, Some(id)));
    let action = if version.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" };
    let resource = format!("arn:aws:s3:::{}", decoded(path).trim_start_matches('/'));
    Need { right: Right { action: action.to_owned(), resource }, context: BTreeMap::new() }
}

/// Percent-encoded text, decoded.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap()
}
