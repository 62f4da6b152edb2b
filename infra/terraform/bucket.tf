locals {
  # The rule that removes what `prune` has deleted, 30 days later and when its lock is over. It expires old versions alone:
  # an object that is there counts, whatever its age.
  lifecycle = jsondecode(replace(file("${path.module}/../iam/lifecycle.json"), "PREFIX", var.prefix)).Rules
}

resource "aws_s3_bucket" "backups" {
  bucket              = var.bucket
  object_lock_enabled = true
  tags                = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

# There is no default retention: haulout locks each object itself, and its leases not at all.
resource "aws_s3_bucket_versioning" "backups" {
  bucket = aws_s3_bucket.backups.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_ownership_controls" "backups" {
  bucket = aws_s3_bucket.backups.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "backups" {
  bucket                  = aws_s3_bucket.backups.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "backups" {
  bucket = aws_s3_bucket.backups.id

  rule {
    # One data key for many objects: else each pack is a request to KMS.
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.backups.arn
    }
  }
}

resource "aws_s3_bucket_policy" "backups" {
  bucket = aws_s3_bucket.backups.id
  policy = jsonencode(local.tls_only[var.bucket])

  depends_on = [aws_s3_bucket_public_access_block.backups]
}

resource "aws_s3_bucket_lifecycle_configuration" "backups" {
  bucket = aws_s3_bucket.backups.id

  dynamic "rule" {
    for_each = local.lifecycle

    content {
      id     = rule.value.ID
      status = rule.value.Status

      filter {
        prefix = rule.value.Filter.Prefix
      }

      noncurrent_version_expiration {
        noncurrent_days = rule.value.NoncurrentVersionExpiration.NoncurrentDays
      }

      expiration {
        expired_object_delete_marker = rule.value.Expiration.ExpiredObjectDeleteMarker
      }

      abort_incomplete_multipart_upload {
        days_after_initiation = rule.value.AbortIncompleteMultipartUpload.DaysAfterInitiation
      }
    }
  }

  dynamic "rule" {
    for_each = length(var.storage_classes) == 0 ? [] : ["${var.prefix}/packs/"]

    content {
      id     = "haulout-storage-classes"
      status = "Enabled"

      filter {
        prefix = rule.value
      }

      dynamic "transition" {
        for_each = var.storage_classes

        content {
          days          = transition.value.days
          storage_class = transition.value.class
        }
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.backups]
}
