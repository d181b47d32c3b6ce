//! Planning, without a client, a clock or a disk.
//!
//! Two plans make up Larder. The operator's: all `ImageCache`s and a node give the images that node is to hold. The
//! agent's: the images to hold and those that are there give the steps to take. Both are functions of what is passed
//! to them, so that a restart plans the same again, and so is what statuses say about the result.

#![forbid(unsafe_code)]

mod allowed;
pub mod census;
pub mod cleaning;
pub mod condition;
mod desired;
pub mod index;
mod listing;
pub mod node;
mod node_cache;
pub mod object;
mod pool;
pub mod refresh;
mod removal;
mod removal_status;
pub mod rollout;
mod secrets;
mod selector;
mod settings;
mod status;
pub mod transition;
mod union;
pub mod validate;
mod verdict;

pub use allowed::{AllowList, InvalidRegistry, RegistryPattern};
pub use index::{Index, Key};
pub use secrets::SecretsAction;
pub use settings::is_file_name;
pub use union::Union;
