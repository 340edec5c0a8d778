//! s3s-fs: an S3 server on a folder that checks signatures. Its conditional writes are right for one writer at a time.

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

/// A server within this process; ended when this goes out of scope.
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) address: String,
    serving: JoinHandle<()>,
    folder: Option<TempDir>,
}

impl Server {
    /// One with an empty bucket.
    pub(crate) async fn start(bucket: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(bucket)).unwrap();
        Self::on(folder).await
    }

    async fn on(folder: TempDir) -> Self {
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("somebody", "hunter2-hunter2"));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    // A client that hangs up is no fault of the server.
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, serving, folder: Some(folder) }
    }

    /// The server ends, and another one begins on the same folder.
    pub(crate) async fn restart(mut self) -> Self {
        let folder = self.folder.take().unwrap();
        Self::on(folder).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
