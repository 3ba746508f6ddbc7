//! The planner, row by row and by its properties.

mod founding;
mod joining;
mod member;
mod properties;
mod scene;
mod sources;
mod volume;
