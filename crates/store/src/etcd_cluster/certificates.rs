//! Certificates of a cluster's members and clients, made anew for each cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use etcd_client::{Certificate, Identity, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::User;

#[derive(Debug)]
pub(super) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Writes an authority, a certificate for the members, and one for each client.
    pub(super) fn make(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "etcd of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        // The members' certificate names nobody: a name in it would be a user.
        for (file, name) in
            [("member", ""), ("root", "root"), ("lethe", "lethe"), ("stranger", "stranger"), ("nameless", "")]
        {
            let hosts =
                if file == "member" { vec!["127.0.0.1".to_owned(), "localhost".to_owned()] } else { vec![] };
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if !name.is_empty() {
                params.distinguished_name.push(DnType::CommonName, name);
            }
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
            fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder: folder.to_owned() }
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// What a member is told.
    pub(super) fn flags(&self) -> Vec<String> {
        let (ca, certificate, key) = (self.path("ca.pem"), self.path("member.pem"), self.path("member.key"));
        vec![
            format!("--trusted-ca-file={ca}"),
            format!("--cert-file={certificate}"),
            format!("--key-file={key}"),
            "--client-cert-auth".to_owned(),
            format!("--peer-trusted-ca-file={ca}"),
            format!("--peer-cert-file={certificate}"),
            format!("--peer-key-file={key}"),
            "--peer-client-cert-auth".to_owned(),
        ]
    }

    /// What a client of this name needs.
    pub(super) fn tls(&self, name: &str) -> TlsOptions {
        let read = |file: &str| fs::read(self.folder.join(file)).unwrap();
        TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read(&format!("{name}.pem")), read(&format!("{name}.key"))))
    }

    /// The same as a coordinator reads it.
    pub(super) fn environment(&self, user: User) -> Vec<(&'static str, String)> {
        let mut environment = vec![("ETCD_AUTH_CA", self.path("ca.pem"))];
        let name = match user {
            User::Lethe => "lethe",
            User::Stranger => "stranger",
            User::Password(password) => {
                environment.push(("ETCD_AUTH_USERNAME", "lethe-password".to_owned()));
                environment.push(("ETCD_AUTH_PASSWORD", password.to_owned()));
                "nameless"
            }
            User::Nobody => return environment,
        };
        environment.push(("ETCD_AUTH_CLIENT_CERT", self.path(&format!("{name}.pem"))));
        environment.push(("ETCD_AUTH_CLIENT_KEY", self.path(&format!("{name}.key"))));
        environment
    }
}
