//! Large values by small numbers, so that a state of the world is small and quick to compare.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, RwLock};

/// A value's number.
pub type Id = u32;

/// Every distinct value that was met, by number.
#[derive(Debug)]
pub struct Table<T>(RwLock<(HashMap<Arc<T>, Id>, Vec<Arc<T>>)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::new((HashMap::new(), Vec::new())))
    }
}

impl<T: Hash + Eq> Table<T> {
    pub fn put(&self, value: T) -> Id {
        if let Some(id) = self.0.read().unwrap().0.get(&value) {
            return *id;
        }
        let mut table = self.0.write().unwrap();
        if let Some(id) = table.0.get(&value) {
            return *id;
        }
        let id = Id::try_from(table.1.len()).unwrap();
        let value = Arc::new(value);
        table.1.push(value.clone());
        table.0.insert(value, id);
        id
    }

    pub fn get(&self, id: Id) -> Arc<T> {
        self.0.read().unwrap().1[id as usize].clone()
    }
}
