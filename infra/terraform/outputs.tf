output "repository" {
  description = "URL for HAULOUT_REPO."
  value       = "s3://${var.bucket}/${var.prefix}"
}

output "replica_repository" {
  description = "URL of the copy in the second region, for HAULOUT_COPY_TO where replica_by is copy; null without one."
  value       = var.replica_bucket == null ? null : "s3://${var.replica_bucket}/${var.prefix}"
}

output "role_arns" {
  description = "ARN of each role, for `eks.amazonaws.com/role-arn` or a profile's `role_arn`."
  value       = { for role, made in aws_iam_role.haulout : role => made.arn }
}

output "instance_profiles" {
  description = "Name of the instance profile of each role that ec2.amazonaws.com is trusted with."
  value       = { for role, made in aws_iam_instance_profile.haulout : role => made.name }
}

output "key_arns" {
  description = "ARNs of the KMS keys: of the bucket, and of the replica."
  value       = concat([aws_kms_key.backups.arn], aws_kms_key.replica[*].arn)
}
