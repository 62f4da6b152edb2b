//! Ways to a bucket: profiles, roles of machines, containers and pods, TLS with an authority of one's own.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::support::{Bucket, Haulout, LocalStack, PolicedPath, Policy, Site, binary::Run, scratch, site::assert_says};

/// Answers each request with what `answer` makes of its first line and its body, as JSON or XML.
fn serve(answer: impl Fn(&str, &str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_lowercase();
                if line.is_empty() {
                    break;
                }
                length = line.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = answer(first.trim(), &String::from_utf8_lossy(&body));
            // The last is for those who ask for a token.
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\
                 x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n",
                body.len()
            );
            // A client that has seen enough may be gone.
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

/// The repository of `bucket`, to which the environment says nothing but where it is and `more`.
fn reached_by(bucket: &Bucket, more: &[(&str, &str)]) -> Haulout {
    let place = bucket.environment().into_iter().filter(|(name, _)| !name.contains("KEY"));
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    // Nobody shall be asked who is not there.
    let nobody = [("AWS_EC2_METADATA_DISABLED", "true".to_owned())];
    Haulout::on(bucket.url("db1")).with(place.chain(nobody).chain(more))
}

/// Takes a backup and tells where `doctor` says that the credentials came from.
fn backed_up(site: &Site, haulout: &Haulout) -> String {
    haulout.run(["init"]).ok();
    haulout.backup(&site.server, &[]).ok();
    haulout.run(["check"]).ok();
    let socket = format!("--socket={}", site.server.socket().display());
    let run: Run = haulout.run(["--json", "doctor", &socket, "--user=root"]).ok();
    let told = run.messages.iter().find(|message| message["check"] == "store.credentials").unwrap();
    told["message"].as_str().unwrap().to_owned()
}

#[test]
fn without_credentials_nothing_is_done_and_the_ways_to_give_some_are_named() {
    let bucket = LocalStack::shared().bucket();
    let run = reached_by(&bucket, &[]).run(["--json", "init"]).exits(22);
    assert_says(&run, 22, "no credentials", "AWS_ACCESS_KEY_ID");
    assert_eq!(bucket.keys(""), [""; 0]);
}

#[test]
fn a_profile_gives_credentials() {
    let (site, bucket, folder) = (Site::new(), LocalStack::shared().bucket(), scratch());
    let file = folder.path().join("credentials");
    fs::write(
        &file,
        "[default]\naws_access_key_id = AKIADEFAULT00000001\naws_secret_access_key = test\n\
         [backup]\naws_access_key_id = AKIAPROFILE00000002\naws_secret_access_key = test\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file);
    let told = backed_up(&site, &reached_by(&bucket, &[shared, ("AWS_PROFILE", "backup")]));
    assert!(told.contains("a profile, access key AKIA…0002"), "{told}");
    let other = LocalStack::shared().bucket();
    let told = backed_up(&site, &reached_by(&other, &[shared]));
    assert!(told.contains("AKIA…0001"), "{told}");
}

#[test]
fn a_container_s_role_gives_credentials() {
    let (site, bucket) = (Site::new(), LocalStack::shared().bucket());
    let role = serve(|first, _| {
        assert!(first.starts_with("GET /role "), "{first}");
        r#"{"AccessKeyId": "ASIACONTAINER0000003", "SecretAccessKey": "test", "Token": "session",
            "Expiration": "2199-01-01T00:00:00Z"}"#
            .to_owned()
    });
    let uri = format!("http://{role}/role");
    let told = backed_up(&site, &reached_by(&bucket, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]));
    assert!(told.contains("the container's role, access key ASIA…0003"), "{told}");
}

#[test]
fn a_machine_s_role_gives_credentials() {
    let (site, bucket) = (Site::new(), LocalStack::shared().bucket());
    let metadata = serve(|first, _| match first {
        first if first.starts_with("PUT /latest/api/token ") => "a-token".to_owned(),
        first if first.contains("/iam/security-credentials/ ") => "backup-role".to_owned(),
        first => {
            assert!(first.contains("/iam/security-credentials/backup-role "), "{first}");
            r#"{"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
                "AccessKeyId": "ASIAINSTANCE00000005", "SecretAccessKey": "test", "Token": "session",
                "Expiration": "2199-01-01T00:00:00Z"}"#
                .to_owned()
        }
    });
    let endpoint = format!("http://{metadata}");
    let haulout = reached_by(
        &bucket,
        &[("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)],
    );
    let told = backed_up(&site, &haulout);
    assert!(told.contains("the machine's role, access key ASIA…0005"), "{told}");
}

/// What Kubernetes gives to a pod whose service account has a role (IRSA), and a service that takes it.
fn web_identity(folder: &Path) -> [(&'static str, String); 3] {
    let token = folder.join("token");
    fs::write(&token, "signed-by-the-cluster").unwrap();
    let sts = serve(|_, body| {
        assert!(body.contains("Action=AssumeRoleWithWebIdentity"), "{body}");
        assert!(body.contains("WebIdentityToken=signed-by-the-cluster"), "{body}");
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
           <AssumeRoleWithWebIdentityResult><Credentials>
             <AccessKeyId>ASIAWEBIDENTITY00004</AccessKeyId><SecretAccessKey>test</SecretAccessKey>
             <SessionToken>session</SessionToken><Expiration>2199-01-01T00:00:00Z</Expiration>
           </Credentials></AssumeRoleWithWebIdentityResult>
         </AssumeRoleWithWebIdentityResponse>"
            .to_owned()
    });
    [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap().to_owned()),
        ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/haulout".to_owned()),
        ("AWS_ENDPOINT_URL_STS", format!("http://{sts}")),
    ]
}

#[test]
fn a_pod_s_web_identity_gives_credentials() {
    let (site, bucket, folder) = (Site::new(), LocalStack::shared().bucket(), scratch());
    let haulout = reached_by(&bucket, &[]).with(web_identity(folder.path()));
    let told = backed_up(&site, &haulout);
    assert!(told.contains("a web identity token (IRSA), access key ASIA…0004"), "{told}");
}

/// As the chart has it where the copy is another account's: the repository by the pod's role or a profile, the copy by a profile.
#[test]
fn a_copy_goes_by_a_profile_of_its_own() {
    let (site, first) = Site::in_bucket();
    site.backed_up(&[]);
    let folder = scratch();
    let file = folder.path().join("credentials");
    fs::write(
        &file,
        "[copy]\naws_access_key_id = AKIACOPY000000000001\naws_secret_access_key = test\n\
         [first]\naws_access_key_id = AKIAFIRST00000000002\naws_secret_access_key = test\n",
    )
    .unwrap();
    let profiles = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap().to_owned()),
        ("HAULOUT_COPY_PROFILE", "copy".to_owned()),
    ];
    for (of_repository, key) in [
        (web_identity(folder.path()).to_vec(), "ASIAWEBIDENTITY00004"),
        (vec![("HAULOUT_PROFILE", "first".to_owned())], "AKIAFIRST00000000002"),
    ] {
        let second = LocalStack::shared().bucket();
        let words = [("BUCKET", first.name()), ("SECOND", second.name()), ("PREFIX", "db1")];
        let path = PolicedPath::to(LocalStack::shared().address(), Policy::of("copier", &words));
        let copier = reached_by(&first, &[("AWS_ENDPOINT_URL", &path.endpoint())]).with(profiles.clone());
        copier.with(of_repository).run(["copy", "--to", &second.url("db1")]).ok();
        let keys: Vec<_> = path.keys().into_iter().collect();
        let expected = [(key, first.name()), ("AKIACOPY000000000001", second.name())];
        let mut expected = expected.map(|(key, bucket)| (key.to_owned(), bucket.to_owned()));
        expected.sort();
        assert_eq!(keys, expected);
    }
}

/// A store behind TLS, with a certificate of an authority that only the file `ca` knows.
fn behind_tls(ca: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(ca, authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let store = LocalStack::shared().address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Those who do not know the authority end it here.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut store = tokio::net::TcpStream::connect(store).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut store).await;
                });
            }
        })
    });
    format!("https://localhost:{port}")
}

#[test]
fn a_store_behind_tls_is_reached_with_its_authority_and_refused_without() {
    let (site, bucket, folder) = (Site::new(), LocalStack::shared().bucket(), scratch());
    let ca = folder.path().join("ca.pem");
    let endpoint = behind_tls(&ca);
    let haulout = |more: &[(&str, &str)]| {
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Haulout::in_bucket(&bucket, "db1").with([("AWS_ENDPOINT_URL", endpoint.clone())]).with(more)
    };
    let run = haulout(&[]).run(["--json", "init"]).exits(22);
    assert_says(&run, 22, "certificate", "CA file");
    let known = haulout(&[("HAULOUT_CA_FILE", ca.to_str().unwrap())]);
    known.run(["init"]).ok();
    let backup = known.backup(&site.server, &[]).ok();
    let datadir = folder.path().join("restored");
    let id = backup.summary()["backup_id"].as_str().unwrap();
    known.run(["restore", "--backup", id, "--datadir", datadir.to_str().unwrap()]).ok();
    assert!(datadir.join("ibdata1").exists());
}
