#Requires -Version 5.1
# The watch's decisions, a JSON line in and one out: each line is a run of checks under one policy.
. (Join-Path -Path (Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent) -ChildPath 'scripts/health_watch.ps1')

while ($null -ne ($line = [Console]::In.ReadLine())) {
    $run = $line | ConvertFrom-Json
    $policy = @{}
    foreach ($one in $run.policy.PSObject.Properties) { $policy[$one.Name] = $one.Value }
    $state = Get-EmptyState
    $told = @()
    foreach ($step in $run.steps) {
        $checks = @{ internal = $step[1]; external = $step[2]; degraded = $step[3] }
        $decision = Get-HealthDecision -State $state -Checks $checks -Policy $policy -NowS ([long]$step[0])
        $actions = @($decision.actions)
        if ($actions -contains 'restart') {
            $again = @{ internal = $step[4]; external = $step[5]; degraded = $step[6] }
            $decision = Get-RecheckDecision -State $decision.state -Checks $again -Policy $policy
            $actions += @($decision.actions)
        }
        $state = $decision.state
        $told += '{0} {1} {2} {3} {4}' -f ($actions -join ','), $decision.reason, $decision.exit_code, $state.good_runs, (@($state.restarts_at_s) -join ',')
    }
    [Console]::Out.WriteLine($told -join '|')
}
