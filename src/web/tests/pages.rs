use super::*;

const PAGES: [&str; 9] = [
    "/",
    "/servers/eu~1db1",
    "/servers/eu~1db1?days=all",
    "/servers/eu~1db1?tables=show",
    "/servers/broken",
    "/servers/eu~1db1/backups/20261122T020000Z-aaaaaa",
    "/servers/eu~1db1/backups/20261122T020000Z-aaaaaa?tables=show",
    "/running",
    "/upcoming",
];

#[tokio::test]
async fn every_page_is_whole_without_a_script_and_obeys_its_own_policy() {
    let served = served(Some(TOKEN)).await;
    for path in PAGES {
        let answer = served.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = &answer.text;
        assert_eq!(text.matches("<script").count(), 1, "{path}");
        for forbidden in
            ["<style", " style=\"", "javascript:", " onclick", "http://", "https://", "<b>not bold", "<i>db1"]
        {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
        for landmark in ["<main id=\"main\"", "<nav aria-label=\"Main\"", "<h1", "class=\"skip\"", "lang=\"en\""] {
            assert!(text.contains(landmark), "{path}: {landmark}");
        }
        assert_eq!(text.matches("<h1").count(), 1, "{path}");
        assert!(!text.contains(TOKEN));
    }
}

#[tokio::test]
async fn the_first_page_answers_the_first_question() {
    let text = served(None).await.get("/").await.text;
    assert!(text.contains("2 of 2 servers need you"), "{text}");
    let (broken, fine) = (text.find("/servers/broken").unwrap(), text.find("/servers/eu~1db1").unwrap());
    assert!(broken < fine);
}

#[tokio::test]
async fn a_backup_s_page_has_the_command_that_restores_it() {
    let text = served(None).await.get(PAGES[5]).await.text;
    let command = "haulout --repo s3://bucket/fleet/eu/db1 restore --backup 20261122T020000Z-aaaaaa --datadir /var/lib/mysql --owner mysql:mysql";
    assert!(text.contains(command), "{text}");
    assert!(text.contains("--to-time 2026-11-22T02:05:04Z"), "{text}");
}

#[tokio::test]
async fn a_service_that_is_called_by_another_name_does_not_answer() {
    let served = served(None).await;
    for (host, status) in [
        ("evil.example", 421),
        ("evil.example:8321", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("localhost:8321", 200),
        ("[::1]:8321", 200),
        ("backup.example", 200),
        ("BACKUP.example:443", 200),
    ] {
        let answer = served.ask(Request::get("/").header("host", host), "").await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
    }
    let twice = Request::get("/").header("host", "localhost").header("host", "evil.example");
    assert_eq!(served.ask(twice, "").await.status.as_u16(), 421);
}

fn cookie(answer: &Answer) -> String {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

fn csrf(text: &str) -> &str {
    text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap()
}

#[tokio::test]
async fn a_run_is_begun_with_the_token_a_session_and_its_secret_and_not_without() {
    let served = served(Some(TOKEN)).await;
    assert!(!served.get("/running").await.text.contains("Drill now"));
    assert_eq!(served.post("/login", &[], "token=wrong").await.status, StatusCode::UNAUTHORIZED);
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(served.post("/login", &foreign, "token=x").await.status, StatusCode::FORBIDDEN);
    let answer = served.post("/login", &[], &format!("token={}", TOKEN.replace(' ', "+"))).await;
    assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &"/running".parse().unwrap()));
    let cookie = cookie(&answer);
    let page = served.ask(Request::get("/running").header("cookie", &cookie), "").await.text;
    assert!(page.contains("Drill now"));
    let secret = csrf(&page).to_owned();
    let with = [("cookie", cookie.as_str())];
    let foreign = [("cookie", cookie.as_str()), ("origin", "https://evil.example")];
    for (headers, body, status) in [
        (&[][..], format!("csrf={secret}&job=backup"), 401),
        (&with[..], "job=backup".to_owned(), 422),
        (&with[..], "csrf=00&job=backup".to_owned(), 403),
        (&foreign[..], format!("csrf={secret}&job=backup"), 403),
        (&with[..], format!("csrf={secret}&job=prune"), 404),
        (&with[..], format!("csrf={secret}&job=drill"), 409),
    ] {
        assert_eq!(served.post("/runs", headers, &body).await.status.as_u16(), status, "{body}");
    }
    assert_eq!(*served.agent.begun.lock().unwrap(), []);
    let begun = served.post("/runs", &with, &format!("csrf={secret}&job=backup")).await;
    assert_eq!((begun.status, &begun.headers["location"]), (StatusCode::SEE_OTHER, &"/running#run-8".parse().unwrap()));
    assert_eq!(*served.agent.begun.lock().unwrap(), [Job::Backup]);
    assert_eq!(served.post("/logout", &with, &format!("csrf={secret}")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        served.post("/runs", &with, &format!("csrf={secret}&job=backup")).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn without_a_token_nothing_can_be_begun() {
    let served = served(None).await;
    assert!(!served.get("/running").await.text.contains("Log in"));
    assert_eq!(served.get("/login").await.status, StatusCode::NOT_FOUND);
    assert_eq!(served.post("/login", &[], "token=").await.status, StatusCode::NOT_FOUND);
    assert_eq!(served.post("/runs", &[], "csrf=&job=backup").await.status, StatusCode::UNAUTHORIZED);
    let bearer = [("authorization", "Bearer "), ("content-type", "application/json")];
    assert_eq!(served.post("/api/v1/runs", &bearer, "{}").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_not_there_is_told_as_a_page_and_what_is_too_long_is_refused() {
    let served = served(None).await;
    for path in ["/nowhere", "/servers/%2e%2e", "/servers/eu~1db1/backups/x", "/servers/%00"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.text.contains("<main") && answer.headers.contains_key("content-security-policy"), "{path}");
    }
    assert_eq!(served.get(&format!("/?q={}", "x".repeat(5000))).await.status, StatusCode::URI_TOO_LONG);
    let long = served.post("/login", &[], &"x".repeat(20 << 10)).await;
    assert_eq!(long.status, StatusCode::NOT_FOUND, "nothing is read where there is nothing to log in to");
    assert_eq!(served.ask(Request::delete("/"), "").await.status, StatusCode::METHOD_NOT_ALLOWED);
}
