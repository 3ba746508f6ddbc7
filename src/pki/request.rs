//! What a request for a certificate asks for (PKCS #10, RFC 2986).
//!
//! Whether it is given is decided elsewhere, so everything in it is told: what is not understood is
//! named, and not passed over. That the asker has the key is for the signer to verify.

use std::net::IpAddr;

use x509_parser::prelude::{
    FromDer as _, GeneralName, ParsedCriAttribute, ParsedExtension, Pem, X509CertificationRequest,
};

use crate::model::enrolment::RequestedSubject;

/// What the request in PEM would have the certificate name.
///
/// # Errors
/// It is no request, or more than one; the text says what was found.
pub fn read(pem: &[u8]) -> Result<RequestedSubject, String> {
    let mut blocks = Pem::iter_from_buffer(pem);
    let block = match (blocks.next(), blocks.next()) {
        (Some(Ok(block)), None) => block,
        (Some(Err(error)), _) => return Err(error.to_string()),
        (None, _) => return Err("no PEM block".to_owned()),
        (Some(Ok(_)), Some(_)) => return Err("more than one PEM block".to_owned()),
    };
    if block.label != "CERTIFICATE REQUEST" {
        return Err(format!("a PEM block named {:?}", block.label));
    }
    let request = match X509CertificationRequest::from_der(&block.contents) {
        Ok(([], request)) => request,
        Ok((rest, _)) => return Err(format!("{} bytes after its end", rest.len())),
        Err(error) => return Err(error.to_string()),
    };
    let mut subject = RequestedSubject::default();
    let info = &request.certification_request_info;
    for attribute in info.subject.iter_attributes() {
        let value = attribute.as_str().map_err(|error| format!("a name in it: {error}"))?.to_owned();
        let kind = attribute.attr_type();
        if *kind == x509_parser::oid_registry::OID_X509_COMMON_NAME {
            subject.common_names.push(value);
        } else if *kind == x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME {
            subject.organizations.push(value);
        } else {
            subject.others.push(format!("{kind}={value}"));
        }
    }
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => {
                for extension in &requested.extensions {
                    match extension.parsed_extension() {
                        ParsedExtension::SubjectAlternativeName(names) => {
                            for name in &names.general_names {
                                alternative(name, &mut subject);
                            }
                        }
                        _ => subject.others.push(format!("the extension {}", extension.oid)),
                    }
                }
            }
            _ => subject.others.push(format!("the attribute {}", attribute.oid)),
        }
    }
    Ok(subject)
}

fn alternative(name: &GeneralName<'_>, subject: &mut RequestedSubject) {
    match name {
        GeneralName::DNSName(name) => {
            subject.dns_names.insert((*name).to_owned());
        }
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => {
                subject.addresses.insert(address);
            }
            None => subject.others.push(format!("an address of {} bytes", bytes.len())),
        },
        other => subject.others.push(other.to_string()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(bytes));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:i-0123456789abcdef0");
        change(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn names_and_addresses_are_told() {
        let pem = request(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("i-0123456789abcdef0".try_into().unwrap()),
                SanType::IpAddress("10.0.1.5".parse().unwrap()),
                SanType::IpAddress("fd00::5".parse().unwrap()),
            ];
        });
        let subject = read(pem.as_bytes()).unwrap();
        assert_eq!(subject.common_names, ["system:node:i-0123456789abcdef0"]);
        assert_eq!(subject.organizations, ["system:nodes"]);
        assert_eq!(subject.dns_names, ["i-0123456789abcdef0".to_owned()].into());
        assert_eq!(subject.addresses, ["10.0.1.5".parse().unwrap(), "fd00::5".parse().unwrap()].into());
        assert_eq!(subject.others, [""; 0]);
    }

    #[test]
    fn what_no_kubelet_asks_for_is_told_too() {
        let pem = request(|params| {
            params.distinguished_name.push(DnType::OrganizationalUnitName, "admins");
            params.subject_alt_names = vec![SanType::URI("spiffe://x".try_into().unwrap())];
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        });
        let others = read(pem.as_bytes()).unwrap().others;
        assert_eq!(others.len(), 3, "{others:?}");
    }

    #[test]
    fn what_is_no_request_is_an_error_that_says_what_was_found() {
        let pem = request(|_| {});
        for (wrong, says) in [
            (String::new(), "no PEM block"),
            (format!("{pem}{pem}"), "more than one"),
            (pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "named"),
        ] {
            let error = read(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
