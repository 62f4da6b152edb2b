//! Runs the operator's commands that encrypt and decrypt a key. They are settings of this machine, and never come from a repository.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};
use zeroize::Zeroizing;

use crate::format::{KEY_BYTES, SEALED_KEY_BYTES_MAX, SecretKey};

/// Time for a command: a KMS answers in a second, and a person who has to touch a token within this.
const LIMIT: Duration = Duration::from_secs(60);

/// What `command` makes of `key`, which it gets as 64 hexadecimal digits.
///
/// # Errors
/// Says how the command failed.
pub async fn encrypt(command: &str, key: &SecretKey) -> Result<Vec<u8>, String> {
    let digits = Zeroizing::new(hex::encode(key.reveal()));
    let sealed = run(command, digits.as_bytes()).await?;
    if sealed.is_empty() {
        return Err("the command printed nothing".to_owned());
    }
    Ok(sealed.to_vec())
}

/// The key that `command` decrypts `sealed` to.
///
/// # Errors
/// Says how the command failed, or that what it printed is no key.
pub async fn decrypt(command: &str, sealed: &[u8]) -> Result<SecretKey, String> {
    let digits = run(command, sealed).await?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    hex::decode_to_slice(digits.trim_ascii(), &mut *key).map_err(|_| {
        format!("the key command printed {} bytes, which are not the key that was encrypted", digits.len())
    })?;
    Ok(SecretKey::new(*key))
}

/// What `command` prints when it is given `input`. What it says on stderr goes to ours.
async fn run(command: &str, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |what: &str, error: std::io::Error| format!("the key command cannot {what}: {error}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("be started", error))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A command that wants no input, because it knows the key from elsewhere, closes it.
            let _ = stdin.write_all(input).await;
        }
    };
    let read = async move {
        let mut output = Zeroizing::new(Vec::with_capacity(SEALED_KEY_BYTES_MAX + 1));
        if let Some(stdout) = stdout {
            stdout.take(SEALED_KEY_BYTES_MAX as u64 + 1).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>(output)
    };
    let whole = async {
        let ((), output) = tokio::join!(write, read);
        let output = output.map_err(|error| failed("be read", error))?;
        if output.len() > SEALED_KEY_BYTES_MAX {
            return Err(format!("the key command prints more than {SEALED_KEY_BYTES_MAX} bytes"));
        }
        let status = child.wait().await.map_err(|error| failed("be waited for", error))?;
        if status.success() { Ok(output) } else { Err(format!("the key command failed: {status}")) }
    };
    match tokio::time::timeout(LIMIT, whole).await {
        Ok(result) => result,
        Err(_) => Err(format!("the key command took more than {} s", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_comes_back_from_the_commands_that_hide_it() {
        let key = SecretKey::new([0xa7; KEY_BYTES]);
        let sealed = encrypt("tr 0-9a-f a-p", &key).await.unwrap();
        assert!(!sealed.windows(4).any(|text| text == b"a7a7"));
        assert!(decrypt("tr a-p 0-9a-f; echo", &sealed).await.unwrap() == key);
    }

    #[tokio::test]
    async fn a_command_that_fails_or_prints_something_else_gives_no_key() {
        let key = SecretKey::new([0xa7; KEY_BYTES]);
        for (command, told) in
            [("exit 3", "exit status: 3"), ("true", "printed nothing"), ("cat /dev/zero", "prints more than")]
        {
            let error = encrypt(command, &key).await.unwrap_err();
            assert!(error.contains(told), "{command}: {error}");
        }
        let error = decrypt("echo hunter2", b"x").await.unwrap_err();
        assert!(error.contains("8 bytes") && !error.contains("hunter"), "{error}");
    }
}
