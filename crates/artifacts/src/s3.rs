//! Opening a bucket of an S3-compatible store: the only place that knows how one is reached.
//!
//! Not here: what its answers mean (`answer`), creating a manifest on it (`create`).

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
    prefix::PrefixStore,
};

use crate::{Environment, Error, Result, proxy::Route, store::object_path};

/// One place, twice.
pub(crate) struct Clients {
    /// Tries again what may pass, within the environment's patience.
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Tries once: whoever creates must know how often a request may have been done.
    pub(crate) once: Arc<dyn ObjectStore>,
    /// The proxy that stands between, for people.
    pub(crate) proxy: Option<String>,
}

/// Everything below `key` of `bucket`. Nothing is sent yet.
pub(crate) fn open(bucket: &str, key: &str, environment: &Environment) -> Result<Clients> {
    let prefix = if key.is_empty() { Path::default() } else { object_path(key)? };
    let route = Route::to(endpoint(environment), environment);
    let connect = |retry| -> Result<Arc<dyn ObjectStore>> {
        let store = route.apply(builder(bucket, environment)).with_retry(retry).build();
        let store = store.map_err(|error| Error::from_store(format_args!("s3://{bucket}/{key}"), error))?;
        Ok(Arc::new(PrefixStore::new(store, prefix.clone())))
    };
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    let patient = RetryConfig { backoff, max_retries: 100, retry_timeout: environment.patience.operation };
    let never = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    Ok(Clients { objects: connect(patient)?, once: connect(never)?, proxy: route.proxy.clone() })
}

/// Where the store is asked.
fn endpoint(environment: &Environment) -> &str {
    let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    named.iter().find_map(|name| environment.get(name)).unwrap_or("https://s3.amazonaws.com")
}

fn builder(bucket: &str, environment: &Environment) -> AmazonS3Builder {
    // First ours, then what the environment says, and last what the location says.
    let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    let seconds = format!("{}ms", environment.patience.answer.as_millis());
    let mut builder = AmazonS3Builder::new().with_config(timeout, seconds);
    for (name, value) in environment.iter() {
        if name.starts_with("AWS_")
            && let Ok(key) = name.to_ascii_lowercase().parse()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder.with_bucket_name(bucket)
}
