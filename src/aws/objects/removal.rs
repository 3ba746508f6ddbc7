//! Removal, for the retention of backups. It is the one deletion that there is, and a [`BackupKey`] the only way to it.

use super::{Cause, ObjectError, ObjectStore};
use crate::model::BackupKey;

const OPERATION: &str = "DeleteObject";

impl ObjectStore {
    /// Removes one object of a backup; that there is none is as good.
    ///
    /// In a bucket with versions S3 only puts a marker over it, and what was there stays for as long as the bucket's own
    /// rules say. Source: "Deleting object versions from a versioning-enabled bucket", Amazon S3 user guide.
    ///
    /// # Errors
    /// [`ObjectError::Kept`] when the role may not, or the bucket keeps the object: to be passed over.
    pub async fn remove_backup(&self, key: &BackupKey) -> Result<(), ObjectError> {
        let key = key.to_string();
        let answer = self.client.delete_object().bucket(&self.bucket).key(self.key(&key)).send().await;
        match answer.map_err(|error| Cause::new(&error)) {
            Ok(_) => Ok(()),
            Err(cause) if cause.code() == Some("NoSuchKey") => Ok(()),
            Err(source) if source.is_denied() || source.code() == Some("MethodNotAllowed") => {
                Err(ObjectError::Kept { operation: OPERATION, object: self.url(&key), source })
            }
            Err(cause) => Err(self.failed(OPERATION, &key, cause)),
        }
    }
}
