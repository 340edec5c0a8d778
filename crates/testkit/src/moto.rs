//! moto: an S3 server in memory whose conditional writes are right. It does not look at signatures.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use crate::skip;

/// A running server; ended when this goes out of scope.
pub struct Moto {
    process: Child,
    /// `host:port`.
    address: String,
}

impl Moto {
    /// Starts it on a port that the system chooses. None, and a skip on record, where it is not installed.
    pub fn start() -> Option<Self> {
        let beside =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|at| at.join(".venv/bin/moto_server"));
        let program = beside.into_iter().find(|file| file.is_file()).unwrap_or_else(|| "moto_server".into());
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let mut process = match command.stderr(Stdio::piped()).spawn() {
            Ok(process) => process,
            Err(error) => {
                skip(&format!("S3 needs moto_server (`pip install 'moto[server]'`): {error}"));
                return None;
            }
        };
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let said = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.split_once("Running on http://").map(|(_, address)| address.trim().to_owned())
        });
        // It logs every request; nobody reads them, but a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let Some(address) = said else {
            let _ = process.wait();
            skip(&format!("S3 needs moto_server, and {} does not start", program.display()));
            return None;
        };
        Some(Self { process, address })
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        let request =
            format!("PUT /{name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The environment of a program that is to use it.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(self.address())
    }
}

/// The environment of a program that is to use the server at `address`.
pub fn variables(address: &str) -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", &format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
