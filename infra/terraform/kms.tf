# Both keys keep the default policy, by which the account's IAM policies decide: those of roles.tf.
resource "aws_kms_key" "backups" {
  description             = "Objects of ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags

  # Without the key nothing can be restored.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "backups" {
  name          = "alias/${replace(var.bucket, ".", "-")}"
  target_key_id = aws_kms_key.backups.key_id
}

# A key of the second region's own: the first one's cannot be used when that region is gone.
resource "aws_kms_key" "replica" {
  count    = local.replicas
  provider = aws.replica

  description             = "Objects of ${local.replica_bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "replica" {
  count    = local.replicas
  provider = aws.replica

  name          = "alias/${replace(local.replica_bucket, ".", "-")}"
  target_key_id = aws_kms_key.replica[0].key_id
}
