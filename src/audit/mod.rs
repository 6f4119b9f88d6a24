#[derive(Clone)]
pub struct Status {}
impl Status {
    pub async fn refresh_metrics(&self) {}
}
