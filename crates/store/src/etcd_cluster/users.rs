//! The users of a cluster with authentication, as docs/etcd.md tells an operator to make them.

use etcd_client::{Client, Permission, UserAddOptions};

/// The password of user `lethe-password`.
pub const PASSWORD: &str = "river-of-forgetting";

/// User `lethe` by certificate, `lethe-password` by password, and `stranger`, who may do nothing; then turns authentication
/// on.
pub(super) async fn set_up(mut root: Client) {
    let by_certificate = || Some(UserAddOptions::new().with_no_pwd());
    root.user_add("root", "", by_certificate()).await.unwrap();
    root.role_add("root").await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.role_add("lethe").await.unwrap();
    let below = Permission::read_write("/lethe/").with_prefix();
    root.role_grant_permission("lethe", below).await.unwrap();
    root.user_add("lethe", "", by_certificate()).await.unwrap();
    root.user_add("lethe-password", PASSWORD, None).await.unwrap();
    root.user_add("stranger", "", by_certificate()).await.unwrap();
    root.user_grant_role("lethe", "lethe").await.unwrap();
    root.user_grant_role("lethe-password", "lethe").await.unwrap();
    root.auth_enable().await.unwrap();
}
